/* What lies in the shared memory of a ring, and who may write which word of it.

   The page `docs/explanation/ring.md` describes the protocol; `_layout.py` holds the same
   offsets for the pure-Python twin, and a test compares the two. Nothing here is trusted by
   whoever reads it: lengths and positions are checked against the size of the mapping, which
   each process knows from the descriptor itself. */

#ifndef PROCESSION_RING_LAYOUT_H
#define PROCESSION_RING_LAYOUT_H

#include <pthread.h>
#include <stdalign.h>
#include <stdatomic.h>
#include <stdint.h>

/* "PRRING", "PRLANE", and the version of the layout. */
#define STREAM_MAGIC UINT64_C(0x3330474e49525250)
#define LANE_MAGIC UINT64_C(0x3130454e414c5250)

/* A header has a page of its own, and the data come behind it. */
#define HEADER_SIZE 4096
/* Two cache lines: processors fetch them in pairs. */
#define APART 128

/* How whoever waits for messages is woken. `armed` is 1 when the bell is silent and is to
   be rung for the next message; whoever changes it to 0 rings. `watched` is 1 when somebody
   waits for the bell itself (fileno), so that it has to ring as long as a message is there. */
struct alarm {
    _Atomic uint32_t armed;
    _Atomic uint32_t watched;
};

/* One direction of a connection: a stream of bytes. Writers have a lock, and readers another,
   which the kernel gives to the next one when the holder dies; "the writer" and "the reader"
   are their holders. */
struct stream {
    uint64_t magic;
    /* Of the data, a power of two. The writer makes it as large as `full`, once, while nothing is
       there to be read. */
    _Atomic uint64_t size;
    uint64_t lock_size;
    uint64_t full;

    /* Written by the writer: how many bytes were ever committed; on which CPU it last was,
       plus one. A message ends at a multiple of `ALIGNMENT`, and a part of one never does, so
       that the store that commits also says whether somebody was in the middle. */
    alignas(APART) _Atomic uint64_t tail;
    _Atomic uint32_t writer_cpu;

    /* Written by the reader, likewise: how many bytes were taken. */
    alignas(APART) _Atomic uint64_t head;
    _Atomic uint32_t reader_cpu;

    alignas(APART) struct alarm alarm;

    /* The position, plus one, that `head` must reach for the sleeping writer to be woken;
       0 when it does not sleep. Whoever changes it to 0 wakes it. */
    alignas(APART) _Atomic uint64_t room_wanted;
    /* 1 when the reader will never read again although its end is open. */
    _Atomic uint32_t stopped;
    /* How many copies of the reader's end were closed in an orderly way. */
    _Atomic uint32_t left;

    alignas(APART) pthread_mutex_t putting;
    alignas(APART) pthread_mutex_t getting;
};

/* What a message in a stream begins with, at a multiple of `ALIGNMENT`. The lengths of the
   buffers come next, eight bytes each, then the body, then the buffers. */
struct record {
    uint64_t body;
    uint32_t buffers;
    uint32_t mark;
};
#define RECORD_MARK UINT32_C(0x52657631)
#define ALIGNMENT 16

/* Packets from many to many. `tail` and `head` each hold a number of packets in the upper
   and a position, in units of `ALIGNMENT`, in the lower half, so that one store commits
   both. Each is written by the holder of its lock, which the kernel gives to the next one
   when the holder dies. */
struct lane {
    uint64_t magic;
    uint64_t size;
    uint64_t lock_size;
    alignas(APART) pthread_mutex_t putting;
    alignas(APART) pthread_mutex_t getting;
    alignas(APART) _Atomic uint64_t tail;
    alignas(APART) _Atomic uint64_t head;
    alignas(APART) struct alarm alarm;
};

_Static_assert(sizeof(struct stream) <= HEADER_SIZE, "a header is one page");
_Static_assert(sizeof(struct lane) <= HEADER_SIZE, "a header is one page");
_Static_assert(sizeof(struct record) == ALIGNMENT, "the mark of a message is aligned");

/* No address space can hold more. */
#define LONGEST_MESSAGE (UINT64_C(1) << 47)
#define MOST_BUFFERS (UINT32_C(1) << 26)

#endif
