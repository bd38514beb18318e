// The limits of scalar code.
#include <math.h>
#include <stdint.h>
#include <string.h>

int64_t reference_multiply_adds(int64_t turns) {
    float a[8] = {0, 1, 2, 3, 4, 5, 6, 7}, sum = 0;
    for (int64_t t = 0; t < turns; t++)
        for (int i = 0; i < 8; i++) a[i] = fmaf(a[i], 0.5f, 0.25f);
    for (int i = 0; i < 8; i++) sum += a[i];
    __asm__ volatile("" : : "m"(sum));
    return turns * 8 * 2;
}

void reference_read_bytes(const void *from, int64_t bytes) {
    uint64_t all = 0, word;
    for (int64_t i = 0; i + 8 <= bytes; i += 8) {
        memcpy(&word, (const char *)from + i, sizeof word);
        all |= word;
    }
    __asm__ volatile("" : : "m"(all));
}
