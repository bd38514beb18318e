// The state of AMX's tile registers around their use.
#pragma once

#include <stdint.h>

/// Gives every tile register sixteen rows of 64 bytes. A kernel calls it before it uses tiles.
static inline void begin_tiles(void) {
    struct {
        uint8_t palette, start_row, reserved[14];
        uint16_t row_bytes[16];
        uint8_t rows[16];
    } __attribute__((aligned(64))) shapes = {.palette = 1};
    for (int i = 0; i < 8; i++) {
        shapes.row_bytes[i] = 64;
        shapes.rows[i] = 16;
    }
    // Not the intrinsic: some compilers take it to read the first bytes only.
    __asm__ volatile("ldtilecfg %0" : : "m"(shapes) : "memory");
}

/// Tells the operating system that tiles need not be saved any more. A kernel calls it after it has used tiles.
static inline void end_tiles(void) { __asm__ volatile("tilerelease" : : : "memory"); }
