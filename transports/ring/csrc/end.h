/* One end of a connection: the state that receiving and sending share. */

#ifndef PROCESSION_RING_END_H
#define PROCESSION_RING_END_H

#include "support.h"

/* One direction, as this end uses it. */
struct half {
    struct stream *stream; /* NULL when this end has not this direction */
    char *data;
    /* As it was when we last looked, and the most that it can become; whether there was no memory
       for that. */
    uint64_t size, full;
    bool stuck;
    /* Whether a message that is longer than the ring was sent here. */
    bool streamed;
    /* The peer's position as it was last seen. Positions only grow, so that it is never too
       high; it is renewed whenever it does not suffice. Its lock's holder alone uses it. */
    uint64_t seen;
    struct patience patience;
    /* Its lock against other threads, which only changes with the GIL: who has it, and how
       often, since a signal handler may use the end that the code it interrupts uses. */
    unsigned long owner;
    int depth;
    /* How many threads wait for it, and what they sleep on, which is open for one of them when
       it has become free. */
    int waiting;
    PyThread_type_lock gate;
    bool open;
    /* In the middle of a message, where a signal handler is refused. */
    bool busy;
    /* The lock of this side against other processes, taken by whoever has ours, and how many
       calls of this thread rely on it: more than one in a signal handler. */
    pthread_mutex_t *side;
    int relying;
    /* Called once a second while somebody waits here, or NULL, and since when he does, or when
       it was last called; 0 at the beginning of a call. */
    PyObject *look;
    int64_t since;
};

typedef struct {
    PyObject_HEAD
    char *map;
    size_t length;
    int memory, in_bell, out_bell, peer, epoll;
    struct half in, out;
    /* Called with a length; returns writable memory of so many bytes. */
    PyObject *take;
    /* Called with the buffers of a message that has some and no body; returns what is received
       then. NULL where there are none. */
    PyObject *luggage;
    unsigned generation;
    /* How many calls are being made; what is closed is given back when the last returns. */
    int users;
    char closed, readable, writable;
    /* Closed because a signal handler raised in the middle of a message. */
    char torn;
    /* The peer has gone for good, and when we last looked. */
    bool alone;
    int64_t looked;
    uint32_t left_seen;
} End;

/* INTERRUPTED: by a signal, or after so long that signals should be looked for. */
enum outcome { DONE, INTERRUPTED, NOTHING, BROKEN, ENDED, CORRUPT, CLOSED };

/* A wait for room is cut into such pieces, so that a close in this process is noticed; one
   for data, which a close ends, into pieces of a second. */
#define LONGEST_SLEEP_NS (NANOSECONDS / 4)
/* How long a writer waits for more room than it needs. */
#define LONGEST_MODESTY_NS (NANOSECONDS / 1000)
/* Longer messages are streamed: the peer begins to copy while we still do. */
#define PIECE (UINT64_C(64) << 10)

/* What threads wait for a half's lock on, closed; NULL with an exception. */
PyThread_type_lock new_gate(void);
/* Begin and end a call; `begin` also takes the lock of *half*, unless that is NULL. */
int begin(End *self, struct half *half);
void finish(End *self, struct half *half);
void give_back(End *self);
/* Take the lock of *half*: 1, or 0 after *longest* nanoseconds, or -1 with an exception. */
int lock_half(struct half *half, int64_t longest);
void unlock_half(struct half *half);
/* Take the side of *half*, whose lock is held, against other processes: 1, or 0 when *end* has
   come, or -1 with an exception. */
int take_side(End *self, struct half *half, int64_t end);
void leave_side(End *self, struct half *half);
/* Look how large the ring is now; false if it cannot be. It does not change as long as there is
   anything to read, nor without the writers' side. */
bool renew_size(struct half *half);
/* Run signal handlers; false with an exception, also in a child that one of them forked. */
bool look_for_signals(void);
/* The same, in a wait for a message to begin: it is also time to look after the other side. */
bool look_around(struct half *half);
/* Call *function*, which may run any code, with *argument*, unless that is NULL, and with a side
   taken; NULL with an exception, also in a child that was forked meanwhile. */
PyObject *call_out(PyObject *function, PyObject *argument);
/* Raises nothing, and keeps an exception that is set. */
void close_end(End *self);

/* Wait without the GIL: for anything to receive, and for *needed* bytes of room at
   *position*. Both return INTERRUPTED after a signal, after *longest* nanoseconds, or after a
   second or `LONGEST_SLEEP_NS`, whichever comes first. */
enum outcome wait_for_data(End *self, int64_t longest, bool spin);
enum outcome wait_for_room(End *self, uint64_t position, uint64_t needed, int64_t longest);
bool peer_has_gone(End *self);
/* Whether the process that was in the middle of a message at *position* has left it for good. */
bool is_cut(const _Atomic uint64_t *position, pthread_mutex_t *side);

PyObject *raise_outcome(End *self, enum outcome outcome);
PyObject *refuse_busy(const char *doing);

/* Send a body, bytes or another buffer, and *buffers*, a sequence or NULL: None, or NULL with an
   exception. If *before*, unless it is NULL, says False when it is called, with the side taken,
   nothing is sent, and False returned. */
PyObject *send_message(End *self, PyObject *body, PyObject *buffers, PyObject *before);
/* Receive a message, into *into*, the buffer of *into_object*, or NULL: its body, and a list in
   *buffers* if it has any, or its luggage. */
PyObject *receive_message(End *self, Py_buffer *into, PyObject *into_object, uint64_t limit,
                          PyObject **buffers);

PyObject *End_receive(PyObject *object, PyObject *const *args, Py_ssize_t count);
PyObject *End_send(PyObject *object, PyObject *const *args, Py_ssize_t count);
PyObject *End_wait_for_room(PyObject *object, PyObject *const *args, Py_ssize_t count);

void stop_reading(End *self);
void wake_writer(End *self);

static inline bool
is_in_the_middle(uint64_t position)
{
    return position % ALIGNMENT != 0;
}

/* What to commit when a message is done up to *position* and not at its end. It is never less
   than what was committed before. */
static inline uint64_t
part_up_to(uint64_t position)
{
    return is_in_the_middle(position) ? position : position - 1;
}

/* A message that is not longer is there, and taken, whole or not at all. */
static inline uint64_t
shortest_part(const struct half *half)
{
    return half->size / 4 < PIECE ? half->size / 4 : PIECE;
}

static inline bool
has_data(const struct stream *stream)
{
    return atomic_load_explicit(&stream->tail, memory_order_acquire) !=
           atomic_load_explicit(&stream->head, memory_order_acquire);
}

#endif
