/* The type `Lock`: a lock, or a recursive lock, in shared memory.

   One word says whose it is, and is the truth: writing it takes the lock, or gives it back.
   Everything else is about the process in that word, or about those who wait.

   Nothing is done to it without the GIL, so that neither another thread nor a signal handler
   of the same process ever sees it half done. */

#include "primitive.h"

#include <stddef.h>

struct words {
    /* The mark of the process that holds it, or 0. */
    _Atomic uint64_t owner;
    struct sleepers sleepers;
    /* How often its thread has acquired a recursive lock. */
    _Atomic uint64_t times;
    /* Written by whoever has just become the owner, with the process id last: one of another
       process than `owner` is of no use. */
    _Atomic uint64_t thread, start, pid;
    char name[sizeof me.name];
};
_Static_assert(sizeof(struct words) == 88, "as _primitive.py reserves it");
/* So that a short name is in the cache line that has everything else. */
_Static_assert(offsetof(struct words, name) == 48, "words without gaps");

typedef struct {
    PyObject_HEAD
    Py_buffer view;
    struct words *words;
    bool recursive;
} Lock;

static enum kind
kind_of(Lock *self)
{
    return self->recursive ? RECURSIVE : LOCK;
}

/* -- whose it is ---------------------------------------------------------------------------- */

static inline bool
take(struct words *words)
{
    uint64_t nobody = 0;
    return atomic_compare_exchange_strong(&words->owner, &nobody, my_mark);
}

/* By its owner, as which two may take themselves when somebody has released what is another
   one's: in the end there is at worst a process id that is not the owner's. */
static void
introduce_myself(struct words *words)
{
    STORE(words->pid, 0);
    atomic_thread_fence(memory_order_seq_cst);
    size_t length = strnlen(me.name, sizeof me.name - 1) + 1;
    memcpy(words->name, me.name, length);
    STORE(words->start, me.start);
    STORE(words->pid, me.pid);
}

static inline void
sign(struct words *words)
{
    if (LOAD(words->pid) != me.pid || LOAD(words->start) != me.start)
        introduce_myself(words);
    STORE(words->thread, PyThread_get_thread_ident());
    STORE(words->times, 1);
}

/* Who is behind the mark, as far as is known: without a name, a thread and half of the start
   if there was no time to write them down. */
static struct holder
holder_of(struct words *words, uint64_t mark)
{
    struct holder found = {.pid = pid_of(mark), .start = mark & UINT32_MAX};
    uint64_t pid = atomic_load(&words->pid), start = LOAD(words->start);
    if (mark_of(pid, start) == mark) {
        found.start = start;
        found.thread = LOAD(words->thread);
        memcpy(found.name, words->name, strnlen(words->name, sizeof found.name));
    }
    return found;
}

/* Whether it is this process's, and this thread's if it is recursive. */
static inline bool
is_mine(Lock *self)
{
    struct words *words = self->words;
    return LOAD(words->owner) == my_mark &&
           (!self->recursive || LOAD(words->thread) == PyThread_get_thread_ident());
}

/* -- waiting ---------------------------------------------------------------------------------- */

/* So often it is looked at before sleeping: for two microseconds, which is a tenth of what it
   costs to fall asleep and be woken by another processor. */
#define LOOKS 8

/* Whether it came free within a moment, and is taken. */
static bool
take_soon(struct words *words)
{
    for (int looks = 0; looks < LOOKS; looks++) {
        uint64_t owner = LOAD(words->owner);
        if (owner == 0 && take(words))
            return true;
        if (pid_of(owner) == me.pid)
            return false; /* that thread needs the GIL */
        pause_a_little();
    }
    return false;
}

/* Take it from a dead owner and raise the error that says so: -1; 0 if there is none. */
static int
look_for_the_dead(Lock *self)
{
    struct words *words = self->words;
    uint64_t owner = atomic_load(&words->owner);
    if (owner == 0 || owner == my_mark || !mark_has_ended(owner))
        return 0;
    struct holder dead = holder_of(words, owner);
    uint64_t times = self->recursive ? LOAD(words->times) : 1;
    if (!atomic_compare_exchange_strong(&words->owner, &owner, 0))
        return 0; /* somebody else has done it */
    if (call_sleeper(&words->sleepers))
        wake_one(&words->sleepers);
    raise_owner_died((int)kind_of(self), &dead, times);
    return -1;
}

/* Whoever goes without it may have been woken for it, and another one can have it. */
static void
pass_on(struct words *words)
{
    /* Being woken has cleared it, and others may be asleep still. */
    atomic_store(&words->sleepers.waiting, 1);
    if (atomic_load(&words->owner) == 0 && call_sleeper(&words->sleepers))
        wake_one(&words->sleepers);
}

/* 1, or 0 when *end* has come, or -1 with an exception. */
static int
wait_for_it(Lock *self, int64_t end)
{
    struct words *words = self->words;
    int64_t look = now_ns() + FIRST_SLEEP_NS;
    for (bool slept = false;; slept = true) {
        if (take_soon(words)) {
            /* Being woken has cleared it, and others may be asleep still. */
            if (slept)
                STORE(words->sleepers.waiting, 1);
            return 1;
        }
        uint32_t turn = atomic_load(&words->sleepers.turn);
        atomic_store(&words->sleepers.waiting, 1);
        if (take(words))
            return 1;
        int64_t now = now_ns();
        bool late = end != FOR_EVER && end <= now;
        if (late || look <= now) {
            if (look_for_the_dead(self) < 0)
                return -1;
            if (late)
                return 0;
            look = now_ns() + LONGEST_NAP_NS;
        }
        int64_t until = end != FOR_EVER && end < look ? end : look;
        if (sleep_until(&words->sleepers, turn, until) < 0)
            return -1;
    }
}

/* -- the methods -------------------------------------------------------------------------------- */

static PyObject *
Lock_acquire(PyObject *object, PyObject *const *args, Py_ssize_t count, PyObject *names)
{
    Lock *self = (Lock *)object;
    struct words *words = self->words;
    int64_t longest = FOR_EVER;
    if ((count != 0 || names != NULL) && read_patience(args, count, names, &longest) < 0)
        return NULL;
    if (know_myself() < 0)
        return NULL;
    if (!take(words)) {
        if (self->recursive && is_mine(self)) {
            STORE(words->times, LOAD(words->times) + 1);
            return PyBool_FromLong(1);
        }
        if (longest == 0)
            return look_for_the_dead(self) < 0 ? NULL : PyBool_FromLong(0);
        int result = wait_for_it(self, end_of(longest));
        if (result <= 0) {
            pass_on(words);
            return result < 0 ? NULL : PyBool_FromLong(0);
        }
    }
    sign(words);
    return PyBool_FromLong(1);
}

static PyObject *
Lock_release(PyObject *object, PyObject *unused)
{
    (void)unused;
    Lock *self = (Lock *)object;
    struct words *words = self->words;
    if (self->recursive) {
        if (know_myself() < 0)
            return NULL;
        if (!is_mine(self)) {
            PyErr_SetString(PyExc_AssertionError,
                            "attempt to release recursive lock not owned by thread");
            return NULL;
        }
        uint64_t times = LOAD(words->times);
        if (times > 1) {
            STORE(words->times, times - 1);
            return none();
        }
    }
    if (atomic_exchange(&words->owner, 0) == 0) {
        PyErr_SetString(PyExc_ValueError, "semaphore or lock released too many times");
        return NULL;
    }
    if (call_sleeper(&words->sleepers))
        wake_one(&words->sleepers);
    return none();
}

static PyObject *
Lock_value(PyObject *object, PyObject *unused)
{
    (void)unused;
    return PyLong_FromLong(atomic_load(&((Lock *)object)->words->owner) == 0);
}

static PyObject *
Lock_count(PyObject *object, PyObject *unused)
{
    (void)unused;
    Lock *self = (Lock *)object;
    if (know_myself() < 0)
        return NULL;
    if (!is_mine(self))
        return PyLong_FromLong(0);
    return PyLong_FromUnsignedLongLong(self->recursive ? LOAD(self->words->times) : 1);
}

static PyObject *
Lock_held(PyObject *object, PyObject *unused)
{
    (void)unused;
    Lock *self = (Lock *)object;
    struct words *words = self->words;
    uint64_t owner = atomic_load(&words->owner);
    if (owner == 0)
        return PyList_New(0);
    struct holder holder = holder_of(words, owner);
    return Py_BuildValue("[(NK)]", record_of(&holder),
                         (unsigned long long)(self->recursive ? LOAD(words->times) : 1));
}

static PyObject *
Lock_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    PyObject *memory;
    int recursive;
    if (kwargs != NULL && PyDict_Size(kwargs) > 0) {
        PyErr_SetString(PyExc_TypeError, "Lock() takes no keyword arguments");
        return NULL;
    }
    if (!PyArg_ParseTuple(args, "Op:Lock", &memory, &recursive))
        return NULL;
    allocfunc allocate = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
    Lock *self = (Lock *)allocate(type, 0);
    if (self == NULL)
        return NULL;
    if (hold_memory(memory, sizeof(struct words), 1, &self->view) < 0) {
        Py_DECREF(self);
        return NULL;
    }
    self->words = self->view.buf;
    self->recursive = recursive;
    return (PyObject *)self;
}

static void
Lock_dealloc(PyObject *object)
{
    free_object(object, &((Lock *)object)->view);
}

static PyMethodDef methods[] = {
    {"acquire", (PyCFunction)(void (*)(void))Lock_acquire, METH_FASTCALL | METH_KEYWORDS,
     "acquire(block=True, timeout=None)\n--\n\nSee `procession.plugin.Primitive.acquire`."},
    {"release", Lock_release, METH_NOARGS,
     "release()\n--\n\nSee `procession.plugin.Primitive.release`."},
    {"value", Lock_value, METH_NOARGS, "value()\n--\n\nReturn how many units are free: 0 or 1."},
    {"count", Lock_count, METH_NOARGS, "count()\n--\n\nReturn how often it is held here."},
    {"held", Lock_held, METH_NOARGS,
     "held()\n--\n\nReturn the record of its holder and how often, or nothing, in a list."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot slots[] = {
    {Py_tp_new, Lock_new},
    {Py_tp_dealloc, Lock_dealloc},
    {Py_tp_methods, methods},
    {Py_tp_doc, "Lock(memory, recursive, /)\n--\n\nA lock in *memory*, which is zero at first."},
    {0, NULL},
};

PyType_Spec lock_spec = {
    .name = "procession_ring._native.Lock",
    .basicsize = sizeof(Lock),
    .flags = Py_TPFLAGS_DEFAULT,
    .slots = slots,
};
