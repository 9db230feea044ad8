/*
 * The limit: the least work that forwarding a packet takes on these cards, in C, without anything that a driver for
 * others to use must have.
 *
 * There is no mempool, no batch and no function of the user's. Both rings hold a buffer in every descriptor for good: a
 * packet's buffer and the one that was sent last from the transmit descriptor change places, in one loop from ring to
 * ring. Beside each ring stands an array with the card's address of each buffer; the cards see memory in one piece, so
 * where a packet lies for us is a constant away.
 *
 * It comes twice: packet by packet, and eight at a time where the processor has vectors of 512 bits (AVX-512).
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { CLEAN_GROUP = 32, TOUCHED_BYTE = 48, LONGEST = 2048, EIGHT = 8 };

/* Datasheet 7.1.6.2 and 7.2.3.2.4: the second word of the advanced descriptors */
#define RX_WHOLE 3ull /* DD, EOP */
#define RX_LENGTH(word) ((word) >> 32 & 0xFFFF)
#define TX_COMMAND (3ull << 20 | 1ull << 24 | 1ull << 25 | 1ull << 29) /* DTYP, EOP, IFCS, DEXT */
#define TX_WORD(length) ((length) << 46 | TX_COMMAND | (length))
#define TX_REPORT_STATUS (1ull << 27)
#define TX_DONE (1ull << 32)

struct descriptor {
    uint64_t address;
    uint64_t word;
};

struct ring {
    struct descriptor *descriptors;
    volatile uint32_t *tail;
    uint64_t *buffers; /* the card's address of the buffer in each descriptor */
    uint32_t mask;
    uint32_t next; /* counted without wrapping */
    uint32_t clean;
};

struct limit {
    struct ring rx;
    struct ring tx;
    intptr_t offset; /* from the card's address of a byte to ours */
    uint32_t batch;
};

static uint64_t acquire(const uint64_t *word) {
    return __atomic_load_n(word, __ATOMIC_ACQUIRE);
}

static void ring_doorbell(volatile uint32_t *tail, uint32_t value) {
    __atomic_thread_fence(__ATOMIC_RELEASE); /* the descriptors are written before */
    *tail = value;
}

/* How many more packets the transmit ring can hold; it is cleaned only if they are fewer than `wanted`. */
static uint32_t room(struct ring *tx, uint32_t wanted) {
    while (tx->mask - (tx->next - tx->clean) < wanted && tx->next - tx->clean >= CLEAN_GROUP) {
        if (!(acquire(&tx->descriptors[(tx->clean + CLEAN_GROUP - 1) & tx->mask].word) & TX_DONE))
            break;
        tx->clean += CLEAN_GROUP;
    }
    return tx->mask - (tx->next - tx->clean);
}

static inline void touch(uint64_t address, intptr_t offset) {
    ((uint8_t *)(address + offset))[TOUCHED_BYTE]++;
}

/* The loops work on copies of the rings: a compiler that sees a byte of a packet change expects all else to change. */

/* Packets from `done` on, until `count` or the first that is not there, one by one; how many there are then. */
static inline uint32_t take_singly(struct limit *limit, uint32_t done, uint32_t count) {
    const struct ring rx = limit->rx, tx = limit->tx;
    const intptr_t offset = limit->offset;
    for (; done < count; done++) {
        uint32_t from = (rx.next + done) & rx.mask, to = (tx.next + done) & tx.mask;
        uint64_t word = acquire(&rx.descriptors[from].word), length = RX_LENGTH(word);
        if ((word & RX_WHOLE) != RX_WHOLE || length - 1 >= LONGEST)
            break;
        uint64_t packet = rx.buffers[from], sent = tx.buffers[to];
        touch(packet, offset);
        rx.buffers[from] = sent;
        rx.descriptors[from] = (struct descriptor){sent, 0};
        tx.buffers[to] = packet;
        tx.descriptors[to] = (struct descriptor){packet, TX_WORD(length)};
    }
    return done;
}

/* Hand `count` descriptors of each ring over to its card. */
static int64_t hand_over(struct limit *limit, uint32_t count) {
    struct ring *rx = &limit->rx, *tx = &limit->tx;
    if (count == 0)
        return 0;
    for (uint32_t end = tx->next | (CLEAN_GROUP - 1); end - tx->next < count; end += CLEAN_GROUP)
        tx->descriptors[end & tx->mask].word |= TX_REPORT_STATUS;
    rx->next += count;
    tx->next += count;
    ring_doorbell(rx->tail, (rx->next - 1) & rx->mask);
    ring_doorbell(tx->tail, tx->next & tx->mask);
    return count;
}

static uint32_t most(struct limit *limit) {
    uint32_t free = room(&limit->tx, limit->batch);
    return free < limit->batch ? free : limit->batch;
}

int64_t ixy_limit_poll(int64_t handle) {
    struct limit *limit = (struct limit *)handle;
    return hand_over(limit, take_singly(limit, 0, most(limit)));
}

#if defined(__AVX512F__) && defined(__has_builtin) && __has_builtin(__builtin_shufflevector)
#define HAS_SIMD 1
#else
#define HAS_SIMD 0
#endif

#if HAS_SIMD
#include <immintrin.h>

typedef uint64_t eight __attribute__((vector_size(64), aligned(8)));

static inline eight load(const void *place) {
    eight value;
    memcpy(&value, place, sizeof(value));
    return value;
}

static inline void store(void *place, eight value) {
    memcpy(place, &value, sizeof(value));
}

/* Write eight descriptors: their first words, and their second ones. */
static inline void store_descriptors(struct descriptor *place, eight first, eight second) {
    store(place, __builtin_shufflevector(first, second, 0, 8, 1, 9, 2, 10, 3, 11));
    store(place + EIGHT / 2, __builtin_shufflevector(first, second, 4, 12, 5, 13, 6, 14, 7, 15));
}

static inline int any(eight value) {
    return _mm512_test_epi64_mask((__m512i)value, (__m512i)value);
}

/* As `take_singly`, eight packets at a time as long as so many good ones are there and neither ring wraps. */
static inline uint32_t take_eights(struct limit *limit, uint32_t count) {
    const struct ring rx = limit->rx, tx = limit->tx;
    const intptr_t offset = limit->offset;
    uint32_t done = 0;
    for (; done + EIGHT <= count; done += EIGHT) {
        uint32_t from = (rx.next + done) & rx.mask, to = (tx.next + done) & tx.mask;
        if (from + EIGHT - 1 > rx.mask || to + EIGHT - 1 > tx.mask)
            break;
        struct descriptor *in = &rx.descriptors[from];
        eight words = __builtin_shufflevector(load(in), load(in + EIGHT / 2), 1, 3, 5, 7, 9, 11, 13, 15);
        eight lengths = RX_LENGTH(words);
        if (any(((words & RX_WHOLE) ^ RX_WHOLE) | ((lengths - 1) & -(uint64_t)LONGEST)))
            break;
        __atomic_thread_fence(__ATOMIC_ACQUIRE);
        eight packets = load(&rx.buffers[from]), sent = load(&tx.buffers[to]);
#pragma GCC unroll 8
        for (int i = 0; i < EIGHT; i++)
            touch(rx.buffers[from + i], offset);
        store(&rx.buffers[from], sent);
        store(&tx.buffers[to], packets);
        store_descriptors(in, sent, (eight){0});
        store_descriptors(&tx.descriptors[to], packets, TX_WORD(lengths));
    }
    return done;
}

int64_t ixy_limit_simd_poll(int64_t handle) {
    struct limit *limit = (struct limit *)handle;
    uint32_t count = most(limit);
    return hand_over(limit, take_singly(limit, take_eights(limit, count), count));
}
#endif

/* Whether there is `ixy_limit_simd_poll`. */
int64_t ixy_limit_has_simd(void) {
    return HAS_SIMD;
}

void ixy_limit_set_batch(int64_t handle, uint32_t batch) {
    ((struct limit *)handle)->batch = batch;
}

/*
 * Takes over two running rings of `size` descriptors whose heads are 0, with as many buffers as both have descriptors;
 * 0 if there is no memory. `memory` is where the first buffer lies for us.
 */
int64_t ixy_limit_create(void *rx_ring, uint32_t *rx_tail, void *tx_ring, uint32_t *tx_tail, uint32_t size,
                         uint8_t *memory, const int64_t *bus_addresses) {
    struct limit *limit = calloc(1, sizeof(*limit));
    uint64_t *buffers = malloc(2 * size * sizeof(*buffers));
    if (!limit || !buffers) {
        free(limit);
        free(buffers);
        return 0;
    }
    memcpy(buffers, bus_addresses, 2 * size * sizeof(*buffers));
    limit->batch = CLEAN_GROUP;
    limit->offset = (intptr_t)memory - bus_addresses[0];
    limit->rx = (struct ring){rx_ring, rx_tail, buffers, size - 1, 0, 0};
    limit->tx = (struct ring){tx_ring, tx_tail, buffers + size, size - 1, 0, 0};
    for (uint32_t i = 0; i < size; i++)
        limit->rx.descriptors[i] = (struct descriptor){buffers[i], 0};
    return (int64_t)limit;
}

void ixy_limit_destroy(int64_t handle) {
    struct limit *limit = (struct limit *)handle;
    free(limit->rx.buffers);
    free(limit);
}
