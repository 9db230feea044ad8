/*
 * The yardstick: the data path that the C driver ixy describes, written anew for the cards of this benchmark.
 *
 * Its data structures are the usual ones of C drivers: each packet buffer starts with a header of one cache line, a
 * mempool is a stack of indices, a batch is an array of pointers to packets, and each ring has an array beside it that
 * says which packet lies in which descriptor. Devices are called through pointers to functions.
 *
 * How far apart buffers lie, and whether every descriptor asks for a status report or the last of each group that is
 * cleaned at once, are the caller's choice: as published (2048 bytes, every descriptor), or as the driver in Python
 * does it. The rest is the same.
 *
 * The control plane is not here: rings and doorbells belong to cards that were brought up before.
 */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

enum { CLEAN_GROUP = 32, MAX_BATCH = 512, TOUCHED_BYTE = 48 };

/* Datasheet 7.1.6.2 and 7.2.3.2.4: bits of the advanced descriptors */
enum { RX_DONE = 1 << 0, RX_END_OF_PACKET = 1 << 1, TX_DONE = 1 << 0 };
enum {
    TX_DATA = 3 << 20,
    TX_END_OF_PACKET = 1 << 24,
    TX_INSERT_CHECKSUM = 1 << 25,
    TX_REPORT_STATUS = 1 << 27,
    TX_EXTENDED = 1 << 29,
    TX_PAYLOAD_SHIFT = 14
};

struct mempool {
    uint8_t *base;
    uint32_t stride; /* bytes from one buffer to the next */
    uint32_t free_count;
    uint32_t free[];
};

struct packet {
    uint64_t bus_address; /* of the buffer, which starts with this header */
    struct mempool *pool;
    uint32_t index;
    uint32_t size;
    uint8_t head_room[40];
    uint8_t data[];
};

union rx_descriptor {
    struct {
        uint64_t packet_address;
        uint64_t header_address;
    } read;
    struct {
        uint64_t info;
        uint32_t status;
        uint16_t length;
        uint16_t vlan;
    } written;
};

union tx_descriptor {
    struct {
        uint64_t packet_address;
        uint32_t command;
        uint32_t options;
    } read;
    struct {
        uint64_t reserved;
        uint32_t sequence;
        uint32_t status;
    } written;
};

struct rx_queue {
    volatile union rx_descriptor *descriptors;
    volatile uint32_t *tail;
    struct mempool *pool;
    uint16_t size;
    uint16_t index;
    struct packet **packets; /* the packet in each descriptor */
};

struct tx_queue {
    volatile union tx_descriptor *descriptors;
    volatile uint32_t *tail;
    uint16_t size;
    uint16_t index;
    uint16_t clean_index;
    struct packet **packets;
};

struct device {
    uint32_t (*rx_batch)(struct device *device, uint16_t queue, struct packet *packets[], uint32_t limit);
    uint32_t (*tx_batch)(struct device *device, uint16_t queue, struct packet *packets[], uint32_t count);
    struct rx_queue *rx_queues;
    struct tx_queue *tx_queues;
};

struct forwarder {
    struct device receiver;
    struct device transmitter;
    struct rx_queue rx;
    struct tx_queue tx;
    struct mempool *pool;
    uint32_t batch;
};

/* Memory */

static struct packet *allocate(struct mempool *pool) {
    if (pool->free_count == 0)
        return NULL;
    uint32_t index = pool->free[--pool->free_count];
    return (struct packet *)(pool->base + (size_t)index * pool->stride);
}

static void give_back(struct packet *packet) {
    struct mempool *pool = packet->pool;
    pool->free[pool->free_count++] = packet->index;
}

/* Rings */

static uint16_t next(uint16_t index, uint16_t size) {
    return (index + 1) & (size - 1);
}

static void write_register(volatile uint32_t *reg, uint32_t value) {
    __asm__ volatile("" ::: "memory"); /* the descriptors are written before */
    *reg = value;
}

static uint32_t rx_batch(struct device *device, uint16_t queue_id, struct packet *packets[], uint32_t limit) {
    struct rx_queue *queue = &device->rx_queues[queue_id];
    uint16_t index = queue->index;
    uint16_t last = index;
    uint32_t count = 0;
    for (; count < limit; count++) {
        volatile union rx_descriptor *descriptor = &queue->descriptors[index];
        uint32_t status = descriptor->written.status;
        if (!(status & RX_DONE))
            break;
        if (!(status & RX_END_OF_PACKET))
            abort(); /* the generator's frames fit one buffer */
        struct packet *packet = queue->packets[index];
        packet->size = descriptor->written.length;
        struct packet *fresh = allocate(queue->pool);
        if (!fresh)
            abort(); /* the pool is larger than both rings */
        descriptor->read.packet_address = fresh->bus_address + offsetof(struct packet, data);
        descriptor->read.header_address = 0;
        queue->packets[index] = fresh;
        packets[count] = packet;
        last = index;
        index = next(index, queue->size);
    }
    if (index != last) {
        write_register(queue->tail, last);
        queue->index = index;
    }
    return count;
}

/* What both ways to send share is inlined into each of them, so that their loops are made for one way only. */
#define SHARED static inline __attribute__((always_inline))

SHARED void clean(struct tx_queue *queue) {
    for (;;) {
        uint16_t used = (queue->index - queue->clean_index) & (queue->size - 1);
        if (used < CLEAN_GROUP)
            return;
        uint16_t end = (queue->clean_index + CLEAN_GROUP - 1) & (queue->size - 1);
        if (!(queue->descriptors[end].written.status & TX_DONE))
            return;
        for (uint16_t i = queue->clean_index;; i = next(i, queue->size)) {
            give_back(queue->packets[i]);
            if (i == end)
                break;
        }
        queue->clean_index = next(end, queue->size);
    }
}

SHARED void report_groups(struct tx_queue *queue, uint32_t first, uint32_t sent) {
    for (uint32_t end = first | (CLEAN_GROUP - 1); end < first + sent; end += CLEAN_GROUP)
        queue->descriptors[end & (queue->size - 1)].read.command |= TX_REPORT_STATUS;
}

/* `report` is TX_REPORT_STATUS, or 0 to ask for it in the last descriptor of each group only. */
SHARED uint32_t send(struct tx_queue *queue, struct packet *packets[], uint32_t count, uint32_t report) {
    clean(queue);
    uint16_t first = queue->index;
    uint32_t sent = 0;
    for (; sent < count; sent++) {
        uint16_t following = next(queue->index, queue->size);
        if (following == queue->clean_index)
            break;
        struct packet *packet = packets[sent];
        volatile union tx_descriptor *descriptor = &queue->descriptors[queue->index];
        queue->packets[queue->index] = packet;
        queue->index = following;
        descriptor->read.packet_address = packet->bus_address + offsetof(struct packet, data);
        descriptor->read.command =
            TX_END_OF_PACKET | report | TX_INSERT_CHECKSUM | TX_EXTENDED | TX_DATA | packet->size;
        descriptor->read.options = packet->size << TX_PAYLOAD_SHIFT;
    }
    if (!report)
        report_groups(queue, first, sent);
    write_register(queue->tail, queue->index);
    return sent;
}

static uint32_t tx_batch(struct device *device, uint16_t queue, struct packet *packets[], uint32_t count) {
    return send(&device->tx_queues[queue], packets, count, TX_REPORT_STATUS);
}

static uint32_t tx_batch_grouped(struct device *device, uint16_t queue, struct packet *packets[], uint32_t count) {
    return send(&device->tx_queues[queue], packets, count, 0);
}

/* The forwarder */

int64_t ixy_reference_poll(int64_t handle) {
    struct forwarder *forwarder = (struct forwarder *)handle;
    struct device *receiver = &forwarder->receiver;
    struct device *transmitter = &forwarder->transmitter;
    struct packet *packets[MAX_BATCH];
    uint32_t received = receiver->rx_batch(receiver, 0, packets, forwarder->batch);
    if (received == 0)
        return 0;
    for (uint32_t i = 0; i < received; i++)
        packets[i]->data[TOUCHED_BYTE]++;
    uint32_t sent = transmitter->tx_batch(transmitter, 0, packets, received);
    for (uint32_t i = sent; i < received; i++)
        give_back(packets[i]);
    return received;
}

void ixy_reference_set_batch(int64_t handle, uint32_t batch) {
    ((struct forwarder *)handle)->batch = batch < MAX_BATCH ? batch : MAX_BATCH;
}

static struct mempool *make_pool(uint8_t *memory, const int64_t *bus_addresses, uint32_t count, uint32_t stride) {
    struct mempool *pool = malloc(sizeof(*pool) + count * sizeof(uint32_t));
    if (!pool)
        return NULL;
    pool->base = memory;
    pool->stride = stride;
    pool->free_count = count;
    for (uint32_t i = 0; i < count; i++) {
        struct packet *packet = (struct packet *)(memory + (size_t)i * stride);
        packet->bus_address = bus_addresses[i];
        packet->pool = pool;
        packet->index = i;
        packet->size = 0;
        pool->free[i] = i;
    }
    return pool;
}

/* Takes over two running rings of `size` descriptors whose heads are 0; 0 if there is no memory. */
int64_t ixy_reference_create(void *rx_ring, uint32_t *rx_tail, void *tx_ring, uint32_t *tx_tail, uint32_t size,
                             uint8_t *memory, const int64_t *bus_addresses, uint32_t buffers, uint32_t stride,
                             uint32_t grouped) {
    struct forwarder *forwarder = calloc(1, sizeof(*forwarder));
    struct packet **rx_packets = calloc(size, sizeof(*rx_packets));
    struct packet **tx_packets = calloc(size, sizeof(*tx_packets));
    struct mempool *pool = make_pool(memory, bus_addresses, buffers, stride);
    if (!forwarder || !rx_packets || !tx_packets || !pool) {
        free(forwarder);
        free(rx_packets);
        free(tx_packets);
        free(pool);
        return 0;
    }
    forwarder->pool = pool;
    forwarder->batch = CLEAN_GROUP;
    forwarder->rx = (struct rx_queue){rx_ring, rx_tail, pool, size, 0, rx_packets};
    forwarder->tx = (struct tx_queue){tx_ring, tx_tail, size, 0, 0, tx_packets};
    forwarder->receiver = (struct device){rx_batch, NULL, &forwarder->rx, NULL};
    forwarder->transmitter = (struct device){NULL, grouped ? tx_batch_grouped : tx_batch, NULL, &forwarder->tx};
    for (uint32_t i = 0; i < size; i++) {
        rx_packets[i] = allocate(pool);
        forwarder->rx.descriptors[i].read.packet_address = rx_packets[i]->bus_address + offsetof(struct packet, data);
        forwarder->rx.descriptors[i].read.header_address = 0;
    }
    return (int64_t)forwarder;
}

void ixy_reference_destroy(int64_t handle) {
    struct forwarder *forwarder = (struct forwarder *)handle;
    free(forwarder->rx.packets);
    free(forwarder->tx.packets);
    free(forwarder->pool);
    free(forwarder);
}
