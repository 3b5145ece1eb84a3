#include <stdio.h>
#include <stdlib.h>

#include "tally.h"

int main(void)
{
    struct tally tally = { 0 };
    char *word = NULL;

    while (scanf("%ms", &word) == 1) {
        if (tally_add(&tally, word) != 0) {
            perror("tally");
            return EXIT_FAILURE;
        }
        free(word);
    }
    tally_sort(&tally);
    for (size_t i = 0; i < tally.len; i++)
        printf("%zu %s\n", tally.words[i].count, tally.words[i].text);
    tally_free(&tally);
    return EXIT_SUCCESS;
}
