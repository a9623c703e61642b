/* The type `Units`: a lock, a recursive lock or a semaphore on words in shared memory.

   What a process does to them it does without giving up the GIL, so that neither another
   thread nor a signal handler of its own ever sees it half done. Other processes are kept
   away by the guard, a word that says who is at work; it is held for some nanoseconds, and
   taken over from a process that was killed in between. What it guards is right after each
   single store: the number of units in a slot is the truth, and the rest follows from it.

   A thread of another process can hold the guard and not run: whoever waits for it for
   longer than a moment gives up the GIL.

   Whether a process lives is asked by its number, so that all must be of one pid namespace. */

#include "support.h"

#include <fcntl.h>
#include <limits.h>
#include <linux/futex.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>

enum kind { LOCK, RECURSIVE, SEMAPHORE };

/* As `procession._holder` lays it out. */
struct holder {
    uint64_t pid, start, thread;
    char name[40];
};

struct slot {
    struct holder holder; /* written before `units` becomes more than 0 */
    _Atomic uint64_t units;
};

struct words {
    /* Who is at work: process id and the lower half of its start; or 0. */
    _Atomic uint64_t guard;
    /* Grows whenever somebody is woken, which is what they sleep on. */
    _Atomic uint32_t turn;
    /* Whether somebody may be asleep. */
    _Atomic uint32_t sleepers;
    /* Whether it is a signal, and its free units then; all units there are while it is none. */
    _Atomic uint64_t signal, free, all;
    /* Whether the descriptor has to be readable while a unit is free. */
    _Atomic uint64_t watched;
    uint64_t reserved[2];
    struct slot slots[];
};
_Static_assert(sizeof(struct words) == 64, "as _primitive.py reserves it");
_Static_assert(sizeof(struct slot) == 72, "as _primitive.py reserves it");

typedef struct {
    PyObject_HEAD
    Py_buffer view;
    struct words *words;
    size_t slots;
    uint64_t most;
    enum kind kind;
    int level; /* the descriptor of a semaphore, or -1 */
} Units;

static PyObject *identify, *bury;
static struct holder me;
static uint64_t my_guard;
static unsigned my_generation;

#define FIRST_SLEEP_NS (NANOSECONDS / 1000)
#define LONGEST_NAP_NS (NANOSECONDS / 10) /* NOTICE_SECONDS */

/* -- processes --------------------------------------------------------------------------- */

static uint64_t
guard_of(uint64_t pid, uint64_t start)
{
    return pid << 32 | (start & UINT32_MAX);
}

/* Learn who this process is, if that is not known; it is another one after a fork. */
static int
know_myself(void)
{
    if (my_guard != 0 && my_generation == fork_generation)
        return 0;
    if (identify == NULL) {
        PyErr_SetString(PyExc_RuntimeError, "it is not known how to identify a process");
        return -1;
    }
    PyObject *record = PyObject_CallNoArgs(identify);
    char *bytes;
    Py_ssize_t length;
    if (record == NULL || PyBytes_AsStringAndSize(record, &bytes, &length) < 0) {
        Py_XDECREF(record);
        return -1;
    }
    if (length != sizeof me) {
        Py_DECREF(record);
        PyErr_SetString(PyExc_ValueError, "not the record of a holder");
        return -1;
    }
    memcpy(&me, bytes, sizeof me);
    Py_DECREF(record);
    my_guard = guard_of(me.pid, me.start);
    /* In a child whose other fork handlers come later it may still be the parent's. */
    if (me.pid == (uint64_t)getpid())
        my_generation = fork_generation;
    return 0;
}

static bool
is_nobody_s(uint64_t pid)
{
    return kill((pid_t)pid, 0) < 0 && errno == ESRCH;
}

/* Whether the process has ended; of *start*, as many bits as *mask* has are compared. What
   cannot be found out, for want of descriptors say, has not. */
static bool
has_ended(uint64_t pid, uint64_t start, uint64_t mask)
{
    if ((start & mask) == 0)
        return is_nobody_s(pid);
    char text[1024];
    snprintf(text, sizeof text, "/proc/%llu/stat", (unsigned long long)pid);
    int fd = open(text, O_RDONLY | O_CLOEXEC);
    if (fd < 0) /* it may be hidden, too, or there is no /proc here */
        return is_nobody_s(pid);
    ssize_t length = read(fd, text, sizeof text - 1);
    int error = errno;
    close(fd);
    if (length <= 0)
        return length < 0 && error == ESRCH && is_nobody_s(pid);
    text[length] = 0;
    char *field = strrchr(text, ')'); /* the name may contain anything */
    if (field == NULL)
        return false;
    char state = field[2];
    unsigned long long threads = 0, started = 0;
    /* State, then 16 others, the number of threads, one more, the start. */
    for (int number = 0; number <= 19 && field != NULL; number++) {
        field = strchr(field + 1, ' ');
        if (field != NULL && number == 17)
            threads = strtoull(field + 1, NULL, 10);
        if (field != NULL && number == 19)
            started = strtoull(field + 1, NULL, 10);
    }
    if (field == NULL)
        return false;
    if ((started & mask) != (start & mask))
        return true;
    return (state == 'Z' || state == 'X' || state == 'x') && threads <= 1;
}

/* -- the guard ---------------------------------------------------------------------------- */

#define SPINS 200

static bool
try_guard(struct words *words, uint64_t from)
{
    return atomic_compare_exchange_strong_explicit(&words->guard, &from, my_guard,
                                                   memory_order_acquire, memory_order_relaxed);
}

/* With signals, fails with the exception of a handler. */
static int
wait_for_guard(Units *self, bool signals)
{
    struct words *words = self->words;
    for (unsigned round = 1;; round++) {
        if (try_guard(words, 0))
            return 0;
        if (round < SPINS) {
            pause_a_little();
            continue;
        }
        struct timespec nap = {.tv_nsec = round < 2 * SPINS ? 1000 : 200000};
        uint64_t before = atomic_load(&words->guard);
        Py_BEGIN_ALLOW_THREADS
        nanosleep(&nap, NULL);
        Py_END_ALLOW_THREADS
        if (signals && PyErr_CheckSignals() < 0)
            return -1;
        /* The same one for so long: preempted, stopped, or dead. */
        if (before != 0 && before == atomic_load(&words->guard) && round % 8 == 0 &&
            before != my_guard && has_ended(before >> 32, before, UINT32_MAX) &&
            try_guard(words, before))
            return 0;
    }
}

static inline int
enter(Units *self, bool signals)
{
    if (know_myself() < 0)
        return -1;
    return try_guard(self->words, 0) ? 0 : wait_for_guard(self, signals);
}

static inline void
leave(struct words *words)
{
    atomic_store_explicit(&words->guard, 0, memory_order_release);
}

/* -- waking --------------------------------------------------------------------------------- */

static void
wake_one(struct words *words)
{
    syscall(SYS_futex, &words->turn, FUTEX_WAKE, 1, NULL, NULL, 0);
}

/* In the guard: whether to wake somebody when it was left. The one who is woken says again
   that there may be others. */
static bool
call_sleeper(struct words *words)
{
    if (!atomic_load_explicit(&words->sleepers, memory_order_relaxed))
        return false;
    atomic_store_explicit(&words->sleepers, 0, memory_order_relaxed);
    atomic_fetch_add_explicit(&words->turn, 1, memory_order_relaxed);
    return true;
}

/* -- what is done in the guard ----------------------------------------------------------------- */

#define LOAD(word) atomic_load_explicit(&(word), memory_order_relaxed)
#define STORE(word, value) atomic_store_explicit(&(word), (value), memory_order_release)

static uint64_t
count_free(Units *self)
{
    struct words *words = self->words;
    if (LOAD(words->signal))
        return LOAD(words->free);
    if (self->kind != SEMAPHORE)
        return LOAD(words->slots[0].units) == 0;
    uint64_t held = 0;
    for (size_t i = 0; i < self->slots; i++)
        held += LOAD(words->slots[i].units);
    return LOAD(words->all) - held;
}

/* Where the units of this process are (of this thread, if recursive), or NULL. */
static struct slot *
own_slot(Units *self)
{
    struct words *words = self->words;
    if (LOAD(words->signal))
        return NULL;
    for (size_t i = 0; i < self->slots; i++) {
        struct slot *slot = &words->slots[i];
        if (LOAD(slot->units) == 0 || slot->holder.pid != me.pid ||
            slot->holder.start != me.start)
            continue;
        if (self->kind == RECURSIVE && slot->holder.thread != PyThread_get_thread_ident())
            return NULL;
        return slot;
    }
    return NULL;
}

static void
become_signal(struct words *words, uint64_t free)
{
    STORE(words->free, free);
    STORE(words->signal, 1);
}

static void
take_anew(Units *self, uint64_t free)
{
    struct words *words = self->words;
    for (size_t i = 0; i < self->slots; i++) {
        struct slot *slot = &words->slots[i];
        if (LOAD(slot->units) != 0)
            continue;
        memcpy(&slot->holder, &me, sizeof me);
        slot->holder.thread = PyThread_get_thread_ident();
        STORE(slot->units, 1);
        return;
    }
    /* More processes than are recorded. */
    become_signal(words, free);
    STORE(words->free, free - 1);
}

static bool
take(Units *self)
{
    struct words *words = self->words;
    uint64_t free = count_free(self);
    struct slot *slot = free != 0 && self->kind != SEMAPHORE ? NULL : own_slot(self);
    if (slot != NULL && self->kind == RECURSIVE)
        STORE(slot->units, LOAD(slot->units) + 1);
    else if (free == 0)
        return false;
    else if (LOAD(words->signal))
        STORE(words->free, free - 1);
    else if (slot != NULL)
        STORE(slot->units, LOAD(slot->units) + 1);
    else
        take_anew(self, free);
    if (LOAD(words->watched) && free <= 1 && self->level >= 0)
        silence(self->level);
    return true;
}

enum given { GIVEN, NOT_OURS, TOO_MANY };

static enum given
give(Units *self)
{
    struct words *words = self->words;
    struct slot *slot = own_slot(self);
    uint64_t free = 0;
    if (slot == NULL) {
        if (self->kind == RECURSIVE)
            return NOT_OURS;
        free = count_free(self);
        if (free >= self->most)
            return TOO_MANY;
    }
    /* First: one killed in between leaves it readable for nothing, and not the reverse. */
    if (LOAD(words->watched) && self->level >= 0)
        ring(self->level);
    if (slot != NULL)
        STORE(slot->units, LOAD(slot->units) - 1);
    else if (self->kind == LOCK)
        STORE(words->slots[0].units, 0);
    else {
        if (!LOAD(words->signal))
            become_signal(words, free);
        STORE(words->free, free + 1);
    }
    return GIVEN;
}

/* -- those who died --------------------------------------------------------------------------- */

/* The formats with # mean different things in different versions of the stable interface. */
static PyObject *
record_of(const struct holder *holder)
{
    return PyBytes_FromStringAndSize((const char *)holder, sizeof *holder);
}

/* Free what one dead process holds and raise the error that says so: -1; 0 if there is none. */
static int
look_for_the_dead(Units *self)
{
    struct words *words = self->words;
    for (size_t i = 0; i < self->slots; i++) {
        struct slot *slot = &words->slots[i];
        if (LOAD(words->signal) || LOAD(slot->units) == 0)
            continue;
        /* It may be changing; it is looked at again before anything is done. */
        struct holder dead;
        memcpy(&dead, &slot->holder, sizeof dead);
        if ((dead.pid == me.pid && dead.start == me.start) ||
            !has_ended(dead.pid, dead.start, UINT64_MAX))
            continue;
        if (enter(self, true) < 0)
            return -1;
        uint64_t units = LOAD(slot->units);
        bool same = !LOAD(words->signal) && units != 0 && slot->holder.pid == dead.pid &&
                    slot->holder.start == dead.start;
        bool called = false;
        if (same) {
            memcpy(&dead, &slot->holder, sizeof dead);
            if (LOAD(words->watched) && self->level >= 0)
                ring(self->level);
            STORE(slot->units, 0);
            called = call_sleeper(words);
        }
        leave(words);
        if (called)
            wake_one(words);
        if (!same)
            continue;
        PyObject *record = record_of(&dead), *error = NULL;
        if (record != NULL)
            error = PyObject_CallFunction(bury, "iNK", (int)self->kind, record,
                                          (unsigned long long)units);
        if (error != NULL) {
            PyErr_SetObject((PyObject *)Py_TYPE(error), error);
            Py_DECREF(error);
        }
        return -1;
    }
    return 0;
}

/* -- acquiring --------------------------------------------------------------------------------- */

/* Whoever goes without a unit may have been woken for one that another can have. */
static void
pass_on(Units *self)
{
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    if (enter(self, false) == 0) {
        /* Being woken has cleared it, and others may be asleep still. */
        atomic_store_explicit(&self->words->sleepers, 1, memory_order_relaxed);
        bool called = count_free(self) != 0 && call_sleeper(self->words);
        leave(self->words);
        if (called)
            wake_one(self->words);
    }
    PyErr_Restore(type, value, traceback);
}

/* 1, or 0 when *end* has come, or -1 with an exception. To look at a holder costs more than
   a hundred short critical sections, so that a first sleep comes before it. */
static int
wait_for_unit(Units *self, int64_t end)
{
    struct words *words = self->words;
    int64_t look = now_ns() + FIRST_SLEEP_NS;
    for (;;) {
        if (enter(self, true) < 0)
            return -1;
        bool taken = take(self), more = false;
        atomic_store_explicit(&words->sleepers, 1, memory_order_relaxed);
        uint32_t turn = atomic_load_explicit(&words->turn, memory_order_relaxed);
        if (taken && count_free(self) != 0)
            more = call_sleeper(words);
        leave(words);
        if (more)
            wake_one(words);
        if (taken)
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
        struct timespec nap = {.tv_sec = 0, .tv_nsec = until > now ? until - now : 0};
        Py_BEGIN_ALLOW_THREADS
        syscall(SYS_futex, &words->turn, FUTEX_WAIT, turn, &nap, NULL, 0);
        Py_END_ALLOW_THREADS
        if (PyErr_CheckSignals() < 0)
            return -1;
    }
}

static int
read_arguments(PyObject *const *args, Py_ssize_t count, PyObject *names, PyObject **block,
               PyObject **timeout)
{
    Py_ssize_t named = names == NULL ? 0 : PyTuple_Size(names);
    PyObject **targets[] = {block, timeout};
    if (count > 2) {
        PyErr_Format(PyExc_TypeError, "acquire() takes at most 2 arguments (%zd given)",
                     count + named);
        return -1;
    }
    for (Py_ssize_t i = 0; i < count; i++)
        *targets[i] = args[i];
    for (Py_ssize_t i = 0; i < named; i++) {
        PyObject *name = PyTuple_GetItem(names, i);
        int which = PyUnicode_CompareWithASCIIString(name, "block") == 0     ? 0
                    : PyUnicode_CompareWithASCIIString(name, "timeout") == 0 ? 1
                                                                             : -1;
        if (which < 0 || which < count) {
            PyErr_Format(PyExc_TypeError,
                         which < 0 ? "acquire() got an unexpected keyword argument '%U'"
                                   : "acquire() got multiple values for argument '%U'",
                         name);
            return -1;
        }
        *targets[which] = args[count + i];
    }
    return 0;
}

static PyObject *
Units_acquire(PyObject *object, PyObject *const *args, Py_ssize_t count, PyObject *names)
{
    Units *self = (Units *)object;
    PyObject *block = Py_True, *timeout = Py_None;
    int64_t longest = FOR_EVER;
    if (count != 0 || names != NULL) {
        if (read_arguments(args, count, names, &block, &timeout) < 0)
            return NULL;
        int blocks = PyObject_IsTrue(block);
        if (blocks < 0)
            return NULL;
        if (!blocks)
            longest = 0;
        else if (timeout != Py_None && read_timeout(timeout, &longest) < 0)
            return NULL;
    }
    if (enter(self, true) < 0)
        return NULL;
    bool taken = take(self);
    leave(self->words);
    if (taken)
        return PyBool_FromLong(1);
    if (longest == 0)
        return look_for_the_dead(self) < 0 ? NULL : PyBool_FromLong(0);
    int result = wait_for_unit(self, longest == FOR_EVER ? FOR_EVER : now_ns() + longest);
    if (result <= 0)
        pass_on(self);
    return result < 0 ? NULL : PyBool_FromLong(result);
}

static PyObject *
Units_release(PyObject *object, PyObject *unused)
{
    (void)unused;
    Units *self = (Units *)object;
    /* A handler that raises must not keep it locked. */
    if (enter(self, false) < 0)
        return NULL;
    enum given given = give(self);
    bool called = given == GIVEN && call_sleeper(self->words);
    leave(self->words);
    if (called)
        wake_one(self->words);
    if (given == NOT_OURS) {
        PyErr_SetString(PyExc_AssertionError,
                        "attempt to release recursive lock not owned by thread");
        return NULL;
    }
    if (given == TOO_MANY) {
        PyErr_SetString(PyExc_ValueError, "semaphore or lock released too many times");
        return NULL;
    }
    return none();
}

/* -- asking ------------------------------------------------------------------------------------- */

static PyObject *
Units_value(PyObject *object, PyObject *unused)
{
    (void)unused;
    Units *self = (Units *)object;
    if (enter(self, false) < 0)
        return NULL;
    uint64_t free = count_free(self);
    leave(self->words);
    return PyLong_FromUnsignedLongLong(free);
}

static PyObject *
Units_count(PyObject *object, PyObject *unused)
{
    (void)unused;
    Units *self = (Units *)object;
    if (enter(self, false) < 0)
        return NULL;
    struct slot *slot = own_slot(self);
    uint64_t units = slot == NULL ? 0 : LOAD(slot->units);
    leave(self->words);
    return PyLong_FromUnsignedLongLong(units);
}

static PyObject *
Units_held(PyObject *object, PyObject *unused)
{
    (void)unused;
    Units *self = (Units *)object;
    struct words *words = self->words;
    struct slot *copy = PyMem_Malloc((self->slots + 1) * sizeof *copy);
    if (copy == NULL)
        return PyErr_NoMemory();
    PyObject *list = NULL;
    if (enter(self, false) < 0)
        goto done;
    size_t count = 0;
    for (size_t i = 0; i < self->slots && !LOAD(words->signal); i++)
        if (LOAD(words->slots[i].units) != 0)
            memcpy(&copy[count++], &words->slots[i], sizeof *copy);
    leave(words);
    list = PyList_New(0);
    for (size_t i = 0; i < count && list != NULL; i++) {
        PyObject *item = Py_BuildValue("(NK)", record_of(&copy[i].holder),
                                       (unsigned long long)LOAD(copy[i].units));
        if (item == NULL || PyList_Append(list, item) < 0)
            Py_CLEAR(list);
        Py_XDECREF(item);
    }
done:
    PyMem_Free(copy);
    return list;
}

static PyObject *
Units_watch(PyObject *object, PyObject *unused)
{
    (void)unused;
    Units *self = (Units *)object;
    if (!LOAD(self->words->watched)) {
        if (enter(self, false) < 0)
            return NULL;
        if (count_free(self) != 0 && self->level >= 0)
            ring(self->level);
        STORE(self->words->watched, 1);
        leave(self->words);
    }
    return none();
}

static PyObject *
Units_close(PyObject *object, PyObject *unused)
{
    (void)unused;
    ((Units *)object)->level = -1;
    return none();
}

/* -- making -------------------------------------------------------------------------------------- */

static PyObject *
Units_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    PyObject *memory;
    int kind, level;
    unsigned long long most;
    if (kwargs != NULL && PyDict_Size(kwargs) > 0) {
        PyErr_SetString(PyExc_TypeError, "Units() takes no keyword arguments");
        return NULL;
    }
    if (!PyArg_ParseTuple(args, "OiKi:Units", &memory, &kind, &most, &level))
        return NULL;
    allocfunc allocate = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
    Units *self = (Units *)allocate(type, 0);
    if (self == NULL)
        return NULL;
    if (PyObject_GetBuffer(memory, &self->view, PyBUF_WRITABLE) < 0) {
        self->view.obj = NULL;
        Py_DECREF(self);
        return NULL;
    }
    size_t length = (size_t)self->view.len;
    if (kind < LOCK || kind > SEMAPHORE || length < sizeof(struct words) ||
        (length - sizeof(struct words)) % sizeof(struct slot) != 0 ||
        (kind != SEMAPHORE && length != sizeof(struct words) + sizeof(struct slot)) ||
        (uintptr_t)self->view.buf % alignof(struct words) != 0) {
        PyErr_SetString(PyExc_ValueError, "not the memory of a lock or semaphore");
        Py_DECREF(self);
        return NULL;
    }
    self->words = self->view.buf;
    self->slots = (length - sizeof(struct words)) / sizeof(struct slot);
    self->kind = (enum kind)kind;
    self->most = most;
    self->level = level;
    return (PyObject *)self;
}

static void
Units_dealloc(PyObject *object)
{
    Units *self = (Units *)object;
    if (self->view.obj != NULL)
        PyBuffer_Release(&self->view);
    PyTypeObject *type = Py_TYPE(object);
    freefunc release = (freefunc)PyType_GetSlot(type, Py_tp_free);
    release(object);
    Py_DECREF(type);
}

PyObject *
set_people(PyObject *module, PyObject *args)
{
    (void)module;
    PyObject *how_to_identify, *how_to_bury;
    if (!PyArg_ParseTuple(args, "OO:set_people", &how_to_identify, &how_to_bury))
        return NULL;
    Py_XDECREF(identify);
    Py_XDECREF(bury);
    identify = Py_NewRef(how_to_identify);
    bury = Py_NewRef(how_to_bury);
    return none();
}

static PyMethodDef methods[] = {
    {"acquire", (PyCFunction)(void (*)(void))Units_acquire, METH_FASTCALL | METH_KEYWORDS,
     "acquire(block=True, timeout=None)\n--\n\nSee `procession.plugin.Primitive.acquire`."},
    {"release", Units_release, METH_NOARGS,
     "release()\n--\n\nSee `procession.plugin.Primitive.release`."},
    {"value", Units_value, METH_NOARGS, "value()\n--\n\nReturn how many units are free."},
    {"count", Units_count, METH_NOARGS, "count()\n--\n\nReturn how often it is held here."},
    {"held", Units_held, METH_NOARGS,
     "held()\n--\n\nReturn the records of all holders, each with its number of units."},
    {"watch", Units_watch, METH_NOARGS,
     "watch()\n--\n\nKeep the descriptor up to date from now on."},
    {"close", Units_close, METH_NOARGS, "close()\n--\n\nForget the descriptor."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot slots[] = {
    {Py_tp_new, Units_new},
    {Py_tp_dealloc, Units_dealloc},
    {Py_tp_methods, methods},
    {Py_tp_doc,
     "Units(memory, kind, most, level, /)\n--\n\n"
     "Units in *memory*, which is zero at first; *level* is a descriptor, or -1."},
    {0, NULL},
};

PyType_Spec units_spec = {
    .name = "procession_ring._native.Units",
    .basicsize = sizeof(Units),
    .flags = Py_TPFLAGS_DEFAULT,
    .slots = slots,
};
