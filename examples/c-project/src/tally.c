#include "tally.h"

#include <stdlib.h>
#include <string.h>

int tally_add(struct tally *tally, const char *text)
{
    for (size_t i = 0; i < tally->len; i++) {
        if (strcmp(tally->words[i].text, text) == 0) {
            tally->words[i].count++;
            return 0;
        }
    }
    if (tally->len == tally->cap) {
        size_t cap = tally->cap ? 2 * tally->cap : 64;
        struct word *words = realloc(tally->words, cap * sizeof *words);
        if (!words)
            return -1;
        tally->words = words;
        tally->cap = cap;
    }
    char *copy = strdup(text);
    if (!copy)
        return -1;
    tally->words[tally->len++] = (struct word){ .text = copy, .count = 1 };
    return 0;
}

static int order(const void *a, const void *b)
{
    const struct word *x = a, *y = b;
    if (x->count != y->count)
        return x->count < y->count ? 1 : -1;
    return strcmp(x->text, y->text);
}

void tally_sort(struct tally *tally)
{
    if (tally->len > 0)
        qsort(tally->words, tally->len, sizeof *tally->words, order);
}

void tally_free(struct tally *tally)
{
    for (size_t i = 0; i < tally->len; i++)
        free(tally->words[i].text);
    free(tally->words);
    *tally = (struct tally){ 0 };
}
