// Residual streams; orders are in include/streams.h.
#include "../include/streams.h"

#include "order.h"
#include "streams_body.h"

#pragma STDC FP_CONTRACT OFF

void reference_stream_mix(const braid_stream_mix *p) {
    for (int64_t r = 0; r < p->m; r++) {
        const float *u = p->streams + r * p->streams_stride;
        float partial[16] = {0};
        for (int64_t j = 0; j < p->n; j++) partial[j % 16] = fmaf(u[j], u[j], partial[j % 16]);
        float mean = add_halves(partial) / (float)p->n;
        mix_row(p, 1.0f / sqrtf(mean + p->norm_eps), p->mixes + r * p->mixes_stride);
    }
}

void reference_read_streams(const braid_streams *p) {
    for (int64_t r = 0; r < p->m; r++) {
        const float *pre = p->mixes + r * p->mixes_stride, *streams = p->streams + r * p->streams_stride;
        for (int64_t d = 0; d < p->n; d++) {
            float a = pre[0] * streams[d];
            for (int64_t j = 1; j < p->count; j++) a = fmaf(pre[j], streams[j * p->n + d], a);
            p->x[r * p->x_stride + d] = a;
        }
    }
}

void reference_write_streams(const braid_streams *p) {
    const int64_t count = p->count;
    for (int64_t r = 0; r < p->m; r++) {
        const float *post = p->mixes + r * p->mixes_stride + count, *mix = post + count;
        float *streams = p->streams + r * p->streams_stride, before[BRAID_MAX_STREAMS];
        for (int64_t d = 0; d < p->n; d++) {
            for (int64_t j = 0; j < count; j++) before[j] = streams[j * p->n + d];
            for (int64_t k = 0; k < count; k++) {
                float a = post[k] * p->x[r * p->x_stride + d];
                for (int64_t j = 0; j < count; j++) a = fmaf(mix[j * count + k], before[j], a);
                streams[k * p->n + d] = a;
            }
        }
    }
}
