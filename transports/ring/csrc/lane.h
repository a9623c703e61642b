/* The lane of a queue: the state of the type `Lane`, and what is done with one of its locks. */

#ifndef PROCESSION_RING_LANE_H
#define PROCESSION_RING_LANE_H

#include "support.h"

typedef struct {
    PyObject_HEAD
    char *map;
    size_t length;
    struct lane *lane;
    char *data;
    uint64_t size, limit;
    int memory, bell;
    /* How many calls of this process are being made without the GIL: as long as there is
       one, what was closed is not given back. */
    int users;
    unsigned generation;
    bool closed;
} Lane;

/* In front of each packet. */
struct packet {
    uint32_t length;
    uint32_t kind;
};

#define COUNT(word) ((uint32_t)((word) >> 32))

/* CHANGED: others have taken some of what was to be taken. */
enum result { TAKEN, NOTHING, CHANGED, BAD };

/* What a call does with a lock held. It needs no GIL, which nobody waits for with a lock. */
typedef enum result (*work)(Lane *self, void *job);

/* Have *work* done with *mutex* held; its result, which is not BAD, or -1 with an exception. */
int do_locked(Lane *self, pthread_mutex_t *mutex, work work, void *job);
int lock_error(int error);

/* A call goes on without the GIL. */
void enter_lane(Lane *self);
void leave_lane(Lane *self);
/* Close the descriptors and unmap the memory. */
void give_lane_back(Lane *self);

struct outgoing {
    const char *start;
    uint64_t length;
};

/* Packets to put, and how many were put. */
struct putting {
    const struct outgoing *packets;
    size_t count, put;
    uint32_t kind;
};

/* Put as many as there is room for; one store commits them all. */
enum result put_all(Lane *self, void *putting);

/* A packet to take, and memory of just its length for it. */
struct incoming {
    PyObject *object; /* whose memory it is */
    char *start;
    uint64_t length;
    uint32_t kind;
};

/* What to take: the next packets as they were seen without the lock. What has no memory yet is
   not taken, so nothing is lost for want of it. */
struct taking {
    struct incoming *packets;
    size_t count;
    struct incoming few[8]; /* what `packets` is as long as that is enough */
};

/* Look, without the lock, which packets, at most *most*, come next, and how long they are;
   their number, and with *packets* also their lengths. It is 0 when none is there any more. */
size_t look_ahead(Lane *self, size_t most, struct incoming *packets);

/* Take all, or CHANGED if they are others; one store commits that. */
enum result take_all(Lane *self, void *taking);

#endif
