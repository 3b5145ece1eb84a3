/* Counts words. */
#ifndef TALLY_H
#define TALLY_H

#include <stddef.h>

struct word {
    char *text;
    size_t count;
};

struct tally {
    struct word *words;
    size_t len, cap;
};

/* Counts one more of a word; the text is copied. Returns -1 when there is no memory. */
int tally_add(struct tally *tally, const char *text);

/* Puts the most frequent first, equals in alphabetical order. */
void tally_sort(struct tally *tally);

void tally_free(struct tally *tally);

#endif
