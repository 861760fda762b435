// Numbers on a processor with vectors: float32 and bf16 in memory, vectors of float32 at work,
// SiLU's sigmoid. Written with the vector types of GCC and Clang, for whichever width the processor
// has.

#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <vector>

#if defined(__AVX512BF16__)
#include <immintrin.h>
#endif

namespace {

using Index = int64_t;

// Floats of a vector, and rows of a tile of sums: TILE_ROWS by two vectors fill the registers, but
// for the operands.
#if defined(__AVX512F__)
constexpr int LANES = 16, TILE_ROWS = 12;
#elif defined(__AVX__)
constexpr int LANES = 8, TILE_ROWS = 6;
#else
constexpr int LANES = 4, TILE_ROWS = 6;
#endif
typedef float Vec __attribute__((vector_size(4 * LANES)));
typedef int32_t VecInt __attribute__((vector_size(4 * LANES)));
typedef float LooseVec __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef float Four __attribute__((vector_size(16)));
typedef int32_t FourInt __attribute__((vector_size(16)));

struct Bf16 {
    uint16_t bits;
};

float widen(float value) { return value; }

float widen(Bf16 value) {
    uint32_t bits = static_cast<uint32_t>(value.bits) << 16;
    float wide;
    std::memcpy(&wide, &bits, 4);
    return wide;
}

// The word of a pair, the first in its lower half.
inline float join(Bf16 low, Bf16 high) {
    const uint32_t bits = low.bits | static_cast<uint32_t>(high.bits) << 16;
    float word;
    std::memcpy(&word, &bits, 4);
    return word;
}

void narrow(float value, float* to) { *to = value; }

void narrow(float value, Bf16* to) {  // to the nearest, ties to even
    uint32_t bits;
    std::memcpy(&bits, &value, 4);
    bool is_nan = (bits & 0x7fffffffu) > 0x7f800000u;
    to->bits = is_nan ? 0x7fc0 : static_cast<uint16_t>((bits + 0x7fffu + (bits >> 16 & 1)) >> 16);
}

Vec load(const float* from) { return *reinterpret_cast<const LooseVec*>(from); }
void store(float* to, Vec value) { *reinterpret_cast<LooseVec*>(to) = value; }

Four load_four(const float* from) {
    Four value;
    std::memcpy(&value, from, 16);
    return value;
}

void store_four(float* to, Four value) { std::memcpy(to, &value, 16); }

Four load_four(const Bf16* from) {
    FourInt bits = {from[0].bits, from[1].bits, from[2].bits, from[3].bits};
    return reinterpret_cast<Four>(bits << 16);
}

Vec load(const Bf16* from) {
    VecInt wide;
    for (int i = 0; i < LANES; ++i) wide[i] = from[i].bits;
    return reinterpret_cast<Vec>(wide << 16);
}

template <class T>
inline Vec load_part(const T* from, Index count) {
    if (count == LANES) return load(from);
    T padded[LANES] = {};
    std::memcpy(padded, from, sizeof(T) * count);
    return load(padded);
}

#if defined(__clang__)
#define LIMBECK_SHUFFLE(a, b, i, j, k, l) __builtin_shufflevector(a, b, i, j, k, l)
#else
#define LIMBECK_SHUFFLE(a, b, i, j, k, l) __builtin_shuffle(a, b, FourInt{i, j, k, l})
#endif

// Relative error at most 2e-7; beyond +-87 it stays at the end of the range, where SiLU no longer
// changes.
Vec exponential(Vec x) {
    const Vec low = Vec{} - 87.0f, high = Vec{} + 87.0f;
    x = x < low ? low : x;
    x = x > high ? high : x;
    const Vec magic = Vec{} + 12582912.0f;  // 1.5 * 2^23: adding it rounds to a whole number
    const Vec whole = (x * 1.44269504088896341f + magic) - magic;
    const Vec rest = (x - whole * 0.693359375f) + whole * 2.12194440e-4f;
    Vec sum = Vec{} + 1.9875691500e-4f;  // polynomial of Cephes' expf
    sum = sum * rest + 1.3981999507e-3f;
    sum = sum * rest + 8.3334519073e-3f;
    sum = sum * rest + 4.1665795894e-2f;
    sum = sum * rest + 1.6666665459e-1f;
    sum = sum * rest + 5.0000001201e-1f;
    sum = sum * rest * rest + rest + 1.0f;
    const VecInt power = (__builtin_convertvector(whole, VecInt) + 127) << 23;
    return sum * reinterpret_cast<Vec>(power);
}

Vec sigmoid(Vec x) { return 1.0f / (1.0f + exponential(-x)); }

// Calls `work(first, count)` for each vector of a row; the last may be partial.
template <class Work>
void for_vectors(Index width, Work work) {
    for (Index i = 0; i < width; i += LANES) work(i, std::min<Index>(LANES, width - i));
}

template <class T>
void store_part(T* to, Vec value, Index count) {
    if constexpr (std::is_same_v<T, float>) {
        std::memcpy(to, &value, 4 * count);
    } else {
        for (Index i = 0; i < count; ++i) narrow(value[i], to + i);
    }
}

template <class T>
void narrow_row(const float* from, T* to, Index count) {
    for (Index i = 0; i < count; ++i) narrow(from[i], to + i);
}

}  // namespace
