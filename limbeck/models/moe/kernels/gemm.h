// Products of small matrices on one thread: tiles of sums in registers, panels of the right factor
// in cache. Left out: threads, experts.

#pragma once

#include "simd.h"

namespace {

constexpr int PANEL = 2 * LANES;                    // columns of a tile
constexpr int TILE_STEP = (TILE_ROWS + 3) / 4 * 4;  // rows are packed by fours
constexpr Index FEW_ROWS = 8;       // up to so many rows, packing a matrix costs more than it saves
constexpr Index STRIP = 16;         // one cache line of each row at a time
constexpr Index DEPTH_BLOCK = 256;  // a panel this deep stays in the first two caches
constexpr Index ROW_BLOCK = 256;    // rows of an expert that one thread takes at once

// packed[k * step + i] = rows[i][k], for `count` rows; the last row fills up the last four.
// Meanwhile as many bytes from `next` on are fetched, in the order of memory: far faster than the
// order in which they will be used.
template <class T>
void transpose(const T* const* rows, Index count, Index depth, float* packed, Index step,
               const T* next = nullptr) {
    for (Index start = 0; start < depth; start += STRIP) {
        const Index end = std::min(start + STRIP, depth);
        for (Index i = 0; i < count; i += 4) {
            const T* a = rows[i];
            const T* b = rows[std::min(i + 1, count - 1)];
            const T* c = rows[std::min(i + 2, count - 1)];
            const T* d = rows[std::min(i + 3, count - 1)];
            float* to = packed + start * step + i;
            for (Index k = start; k < end; k += 4, to += 4 * step) {
                if (next) __builtin_prefetch(next), next += 16;
                Four w = load_four(a + k), x = load_four(b + k), y = load_four(c + k),
                     z = load_four(d + k);
                Four wx_low = LIMBECK_SHUFFLE(w, x, 0, 4, 1, 5),
                     wx_high = LIMBECK_SHUFFLE(w, x, 2, 6, 3, 7);
                Four yz_low = LIMBECK_SHUFFLE(y, z, 0, 4, 1, 5),
                     yz_high = LIMBECK_SHUFFLE(y, z, 2, 6, 3, 7);
                store_four(to, LIMBECK_SHUFFLE(wx_low, yz_low, 0, 1, 4, 5));
                store_four(to + step, LIMBECK_SHUFFLE(wx_low, yz_low, 2, 3, 6, 7));
                store_four(to + 2 * step, LIMBECK_SHUFFLE(wx_high, yz_high, 0, 1, 4, 5));
                store_four(to + 3 * step, LIMBECK_SHUFFLE(wx_high, yz_high, 2, 3, 6, 7));
            }
        }
    }
}

// One product and sum: of numbers, or of pairs of bf16 that lie in one word. `left` is a vector or
// one word for all lanes.
template <bool PAIRS, class Operand>
inline Vec multiply_add(Vec sum, Operand left, Vec right) {
#if defined(__AVX512BF16__)
    if constexpr (PAIRS) {
        __m512 words;
        if constexpr (std::is_same_v<Operand, float>) {
            words = _mm512_set1_ps(left);
        } else {
            words = (__m512)left;
        }
        return (Vec)_mm512_dpbf16_ps((__m512)sum, (__m512bh)words, (__m512bh)right);
    }
#endif
    return sum + left * right;
}

// out[i][j] (+)= sum over k of left[k * left_step + i] * panel[k * PANEL + j]
template <bool PAIRS, int ROWS>
void multiply_tile(const float* left, Index left_step, const float* panel, Index depth,
                   float* const* out, Index column, bool add) {
    Vec sums[ROWS][2] = {};
    for (Index k = 0; k < depth; ++k) {
        Vec first = load(panel + k * PANEL), second = load(panel + k * PANEL + LANES);
#pragma GCC unroll 16
        for (int i = 0; i < ROWS; ++i) {
            float value = left[k * left_step + i];
            sums[i][0] = multiply_add<PAIRS>(sums[i][0], value, first);
            sums[i][1] = multiply_add<PAIRS>(sums[i][1], value, second);
        }
    }
#pragma GCC unroll 16
    for (int i = 0; i < ROWS; ++i) {
        float* to = out[i] + column;
        store(to, add ? load(to) + sums[i][0] : sums[i][0]);
        store(to + LANES, add ? load(to + LANES) + sums[i][1] : sums[i][1]);
    }
}

using TileFunction = void (*)(const float*, Index, const float*, Index, float* const*, Index, bool);

template <bool PAIRS, int ROWS = TILE_ROWS>
TileFunction choose_tile(Index rows) {
    if constexpr (ROWS == 1) {
        return multiply_tile<PAIRS, 1>;
    } else {
        return rows == ROWS ? multiply_tile<PAIRS, ROWS> : choose_tile<PAIRS, ROWS - 1>(rows);
    }
}

// Rows are divided evenly: thirteen are seven and six, not twelve and one.
Index tile_rows(Index rows) {
    Index tiles = (rows + TILE_ROWS - 1) / TILE_ROWS;
    return (rows + tiles - 1) / tiles;
}

// The left factor: element (i, k) of tile t is data[t * tile_step + k * depth_step + i].
struct Left {
    const float* data;
    Index tile_step, depth_step;
};

// out[i][j] (+)= sum over k of left(i, k) * right(k, j). `fill(panel, k, depth, j, columns)` copies
// a panel of the right factor; what it leaves beyond `columns` is computed and dropped.
template <bool PAIRS, class Fill>
void multiply(Left left, Index rows, Index depth, Index columns, Fill fill, float* const* out,
              bool add) {
    alignas(64) float panel[DEPTH_BLOCK * PANEL];
    alignas(64) float edge[TILE_ROWS * PANEL];
    float* edges[TILE_ROWS];
    for (int i = 0; i < TILE_ROWS; ++i) edges[i] = edge + i * PANEL;
    const Index step = tile_rows(rows);
    for (Index k = 0; k < depth; k += DEPTH_BLOCK) {
        const Index deep = std::min(DEPTH_BLOCK, depth - k);
        const bool adds = add || k > 0;
        for (Index j = 0; j < columns; j += PANEL) {
            const Index wide = std::min<Index>(PANEL, columns - j);
            fill(panel, k, deep, j, wide);
            for (Index i = 0, tile = 0; i < rows; i += step, ++tile) {
                const Index high = std::min(step, rows - i);
                const float* from = left.data + tile * left.tile_step + k * left.depth_step;
                TileFunction run = choose_tile<PAIRS>(high);
                if (wide == PANEL) {
                    run(from, left.depth_step, panel, deep, out + i, j, adds);
                    continue;
                }
                run(from, left.depth_step, panel, deep, edges, 0, false);
                for (Index row = 0; row < high; ++row) {
                    for (Index column = 0; column < wide; ++column) {
                        float& to = out[i + row][j + column];
                        to = (adds ? to : 0.0f) + edges[row][column];
                    }
                }
            }
        }
    }
}

// Fills panels from a matrix whose rows are the columns of the right factor: weights in the forward
// pass.
template <class T>
auto across_rows(const T* matrix, Index stride) {
    return [=](float* panel, Index k, Index depth, Index j, Index columns) {
        const T* rows[PANEL];
        for (Index column = 0; column < columns; ++column)
            rows[column] = matrix + (j + column) * stride + k;
        transpose(rows, columns, depth, panel, PANEL, rows[0] + PANEL * stride);
    };
}

// to[k * columns + j] = rows[k][j]; for pairs a word holds rows 2k and 2k + 1, and a last row
// without a partner zero. Gives the number of rows of `to`.
template <bool PAIRS, class T>
Index gather(const T* const* rows, Index count, Index columns, float* to) {
    if constexpr (PAIRS) {
        for (Index i = 0; i < count; i += 2, to += columns) {
            const T *low = rows[i], *high = i + 1 < count ? rows[i + 1] : nullptr;
            for (Index j = 0; j < columns; ++j) to[j] = join(low[j], high ? high[j] : T{0});
        }
        return (count + 1) / 2;
    } else {
        for (Index i = 0; i < count; ++i, to += columns) {
            for (Index j = 0; j < columns; ++j) to[j] = widen(rows[i][j]);
        }
        return count;
    }
}

// Fills panels from a matrix that is the right factor as it lies.
template <bool PAIRS, class T>
auto along_rows(const T* matrix, Index stride) {
    return [=](float* panel, Index k, Index depth, Index j, Index columns) {
        constexpr Index ratio = PAIRS ? 2 : 1;
        for (Index row = 0; row < depth; ++row) {
            const T* from = matrix + ratio * (k + row) * stride + j;
            const T* ends[2] = {from, from + stride};
            gather<PAIRS>(ends, ratio, columns, panel + row * PANEL);
        }
    };
}

// Packs rows as the left factor of a product over their columns.
template <class T>
Left pack(const T* const* rows, Index count, Index depth, float* packed) {
    const Index step = tile_rows(count), tile_step = depth * TILE_STEP;
    for (Index i = 0, tile = 0; i < count; i += step, ++tile) {
        transpose(rows + i, std::min(step, count - i), depth, packed + tile * tile_step, TILE_STEP);
    }
    return {packed, tile_step, TILE_STEP};
}

// Sums of the lanes of four vectors.
Four add_lanes(const Vec* sums) {
    Four quarters[4][LANES / 4];
    std::memcpy(quarters, sums, sizeof(quarters));
    for (int i = 0; i < 4; ++i) {
        for (int part = 1; part < LANES / 4; ++part) quarters[i][0] += quarters[i][part];
    }
    const Four a = quarters[0][0], b = quarters[1][0], c = quarters[2][0], d = quarters[3][0];
    const Four ab = LIMBECK_SHUFFLE(a, b, 0, 4, 1, 5) + LIMBECK_SHUFFLE(a, b, 2, 6, 3, 7);
    const Four cd = LIMBECK_SHUFFLE(c, d, 0, 4, 1, 5) + LIMBECK_SHUFFLE(c, d, 2, 6, 3, 7);
    return LIMBECK_SHUFFLE(ab, cd, 0, 1, 4, 5) + LIMBECK_SHUFFLE(ab, cd, 2, 3, 6, 7);
}

// out[i][column + j] = <rows[i], matrix row j>, for two rows of the matrix.
template <bool PAIRS, int ROWS, class T>
void multiply_two(const T* const* rows, const T* matrix, Index stride, Index depth,
                  float* const* out, Index column) {
    Vec sums[2][4] = {};
    for (Index k = 0; k < depth; k += LANES) {
        const Index count = std::min<Index>(LANES, depth - k);
        // What lies a few rows ahead, again in the order of memory.
        __builtin_prefetch(matrix + 8 * stride + 2 * k);
        __builtin_prefetch(matrix + 8 * stride + 2 * k + LANES);
        const Vec first = load_part(matrix + k, count),
                  second = load_part(matrix + stride + k, count);
#pragma GCC unroll 4
        for (int i = 0; i < ROWS; ++i) {
            const Vec row = load_part(rows[i] + k, count);
            sums[0][i] = multiply_add<PAIRS>(sums[0][i], row, first);
            sums[1][i] = multiply_add<PAIRS>(sums[1][i], row, second);
        }
    }
    const Four first = add_lanes(sums[0]), second = add_lanes(sums[1]);
    for (int i = 0; i < ROWS; ++i) {
        out[i][column] = first[i];
        out[i][column + 1] = second[i];
    }
}

// out[i][j] = <rows[i], matrix row j>: few rows, so the matrix is read as it lies, once, and
// nothing is packed.
template <bool PAIRS, class T>
void multiply_few(const T* const* rows, Index count, Index depth, Index columns, const T* matrix,
                  float* const* out) {
    for (Index j = 0; j < columns; j += 2) {
        const T* from = matrix + j * depth;
        for (Index i = 0; i < count; i += 4) {
            switch (std::min<Index>(4, count - i)) {
                case 1: multiply_two<PAIRS, 1>(rows + i, from, depth, depth, out + i, j); break;
                case 2: multiply_two<PAIRS, 2>(rows + i, from, depth, depth, out + i, j); break;
                case 3: multiply_two<PAIRS, 3>(rows + i, from, depth, depth, out + i, j); break;
                default: multiply_two<PAIRS, 4>(rows + i, from, depth, depth, out + i, j);
            }
        }
    }
}

// out[i][j] = <rows[i], matrix row j>, for any number of rows; `packed` is memory for
// `packed_size`.
template <bool PAIRS, class T>
void multiply_rows(const T* const* rows, Index count, Index depth, Index columns, const T* matrix,
                   float* const* out, float* packed) {
    if (count <= FEW_ROWS) return multiply_few<PAIRS>(rows, count, depth, columns, matrix, out);
    multiply<PAIRS>(pack(rows, count, depth, packed), count, depth, columns,
                    across_rows(matrix, depth), out, false);
}

}  // namespace
