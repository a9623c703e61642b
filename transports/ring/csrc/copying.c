/* Copying what is long. */

#include "support.h"

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

/* The C library would copy so much by one instruction (rep movsb), which some processors do at
   a third of this speed when source and target are not aligned alike and the target is memory
   that another processor has just read: as all messages are. */
void
copy_long(void *target, const void *source, size_t length)
{
    char *to = target;
    const char *from = source;
#if defined(__SSE2__)
    enum { STEP = 64, WORD = sizeof(__m128i) };
    size_t first = -(uintptr_t)to % STEP;
    if (first > length)
        first = length;
    memcpy(to, from, first);
    to += first;
    from += first;
    length -= first;
    for (; length >= STEP; to += STEP, from += STEP, length -= STEP) {
        __m128i one = _mm_loadu_si128((const void *)from);
        __m128i two = _mm_loadu_si128((const void *)(from + WORD));
        __m128i three = _mm_loadu_si128((const void *)(from + 2 * WORD));
        __m128i four = _mm_loadu_si128((const void *)(from + 3 * WORD));
        _mm_store_si128((void *)to, one);
        _mm_store_si128((void *)(to + WORD), two);
        _mm_store_si128((void *)(to + 2 * WORD), three);
        _mm_store_si128((void *)(to + 3 * WORD), four);
        /* Keeps the compiler from making a call of memcpy of it. */
        __asm__ volatile("" ::: "memory");
    }
#endif
    memcpy(to, from, length);
}
