/* The type `Semaphore`: units in shared memory.

   What a process does to them it does without giving up the GIL, so that neither another
   thread nor a signal handler of its own ever sees it half done. Other processes are kept
   away by the guard, a word that says who is at work; it is held for some nanoseconds, and
   taken over from a process that was killed in between. What it guards is right after each
   single store: the number of units in a slot is the truth, and the rest follows from it.

   A thread of another process can hold the guard and not run: whoever waits for it for
   longer than a moment gives up the GIL. */

#include "primitive.h"

struct slot {
    struct holder holder; /* written before `units` becomes more than 0 */
    _Atomic uint64_t units;
};

struct words {
    /* The mark of who is at work, or 0. */
    _Atomic uint64_t guard;
    struct sleepers sleepers;
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
    int level; /* the descriptor, or -1 */
} Semaphore;

/* -- the guard ---------------------------------------------------------------------------- */

#define SPINS 200

static bool
try_guard(struct words *words, uint64_t from)
{
    return atomic_compare_exchange_strong_explicit(&words->guard, &from, my_mark,
                                                   memory_order_acquire, memory_order_relaxed);
}

/* With signals, fails with the exception of a handler. */
static int
wait_for_guard(Semaphore *self, bool signals)
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
            before != my_mark && mark_has_ended(before) && try_guard(words, before))
            return 0;
    }
}

static inline int
enter(Semaphore *self, bool signals)
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

/* -- what is done in the guard ----------------------------------------------------------------- */

static uint64_t
count_free(Semaphore *self)
{
    struct words *words = self->words;
    if (LOAD(words->signal))
        return LOAD(words->free);
    uint64_t held = 0;
    for (size_t i = 0; i < self->slots; i++)
        held += LOAD(words->slots[i].units);
    return LOAD(words->all) - held;
}

/* Where the units of this process are, or NULL. */
static struct slot *
own_slot(Semaphore *self)
{
    struct words *words = self->words;
    if (LOAD(words->signal))
        return NULL;
    for (size_t i = 0; i < self->slots; i++) {
        struct slot *slot = &words->slots[i];
        if (LOAD(slot->units) != 0 && slot->holder.pid == me.pid &&
            slot->holder.start == me.start)
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
take_anew(Semaphore *self, uint64_t free)
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
take(Semaphore *self)
{
    struct words *words = self->words;
    uint64_t free = count_free(self);
    if (free == 0)
        return false;
    struct slot *slot = own_slot(self);
    if (slot != NULL)
        STORE(slot->units, LOAD(slot->units) + 1);
    else if (LOAD(words->signal))
        STORE(words->free, free - 1);
    else
        take_anew(self, free);
    if (LOAD(words->watched) && free <= 1 && self->level >= 0)
        silence(self->level);
    return true;
}

/* Whether there was one to give back. */
static bool
give(Semaphore *self)
{
    struct words *words = self->words;
    struct slot *slot = own_slot(self);
    uint64_t free = slot == NULL ? count_free(self) : 0;
    if (slot == NULL && free >= self->most)
        return false;
    /* First: one killed in between leaves it readable for nothing, and not the reverse. */
    if (LOAD(words->watched) && self->level >= 0)
        ring(self->level);
    if (slot != NULL)
        STORE(slot->units, LOAD(slot->units) - 1);
    else {
        if (!LOAD(words->signal))
            become_signal(words, free);
        STORE(words->free, free + 1);
    }
    return true;
}

/* -- those who died --------------------------------------------------------------------------- */

/* Free what one dead process holds and raise the error that says so: -1; 0 if there is none. */
static int
look_for_the_dead(Semaphore *self)
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
            !has_ended(dead.pid, dead.start))
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
            called = call_sleeper(&words->sleepers);
        }
        leave(words);
        if (called)
            wake_one(&words->sleepers);
        if (!same)
            continue;
        raise_owner_died(SEMAPHORE, &dead, units);
        return -1;
    }
    return 0;
}

/* -- acquiring --------------------------------------------------------------------------------- */

/* Whoever goes without a unit may have been woken for one that another can have. */
static void
pass_on(Semaphore *self)
{
    struct words *words = self->words;
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    if (enter(self, false) == 0) {
        /* Being woken has cleared it, and others may be asleep still. */
        STORE(words->sleepers.waiting, 1);
        bool called = count_free(self) != 0 && call_sleeper(&words->sleepers);
        leave(words);
        if (called)
            wake_one(&words->sleepers);
    }
    PyErr_Restore(type, value, traceback);
}

/* 1, or 0 when *end* has come, or -1 with an exception. */
static int
wait_for_unit(Semaphore *self, int64_t end)
{
    struct words *words = self->words;
    int64_t look = now_ns() + FIRST_SLEEP_NS;
    for (;;) {
        if (enter(self, true) < 0)
            return -1;
        bool taken = take(self), more = false;
        STORE(words->sleepers.waiting, 1);
        uint32_t turn = LOAD(words->sleepers.turn);
        if (taken && count_free(self) != 0)
            more = call_sleeper(&words->sleepers);
        leave(words);
        if (more)
            wake_one(&words->sleepers);
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
        if (sleep_until(&words->sleepers, turn, until) < 0)
            return -1;
    }
}

static PyObject *
Semaphore_acquire(PyObject *object, PyObject *const *args, Py_ssize_t count, PyObject *names)
{
    Semaphore *self = (Semaphore *)object;
    int64_t longest = FOR_EVER;
    if ((count != 0 || names != NULL) && read_patience(args, count, names, &longest) < 0)
        return NULL;
    if (enter(self, true) < 0)
        return NULL;
    bool taken = take(self);
    leave(self->words);
    if (taken)
        return PyBool_FromLong(1);
    if (longest == 0)
        return look_for_the_dead(self) < 0 ? NULL : PyBool_FromLong(0);
    int result = wait_for_unit(self, end_of(longest));
    if (result <= 0)
        pass_on(self);
    return result < 0 ? NULL : PyBool_FromLong(result);
}

static PyObject *
Semaphore_release(PyObject *object, PyObject *unused)
{
    (void)unused;
    Semaphore *self = (Semaphore *)object;
    /* A handler that raises must not keep it locked. */
    if (enter(self, false) < 0)
        return NULL;
    bool given = give(self);
    bool called = given && call_sleeper(&self->words->sleepers);
    leave(self->words);
    if (called)
        wake_one(&self->words->sleepers);
    if (!given) {
        PyErr_SetString(PyExc_ValueError, "semaphore or lock released too many times");
        return NULL;
    }
    return none();
}

/* -- asking ------------------------------------------------------------------------------------- */

static PyObject *
Semaphore_value(PyObject *object, PyObject *unused)
{
    (void)unused;
    Semaphore *self = (Semaphore *)object;
    if (enter(self, false) < 0)
        return NULL;
    uint64_t free = count_free(self);
    leave(self->words);
    return PyLong_FromUnsignedLongLong(free);
}

static PyObject *
Semaphore_count(PyObject *object, PyObject *unused)
{
    (void)unused;
    Semaphore *self = (Semaphore *)object;
    if (enter(self, false) < 0)
        return NULL;
    struct slot *slot = own_slot(self);
    uint64_t units = slot == NULL ? 0 : LOAD(slot->units);
    leave(self->words);
    return PyLong_FromUnsignedLongLong(units);
}

static PyObject *
Semaphore_held(PyObject *object, PyObject *unused)
{
    (void)unused;
    Semaphore *self = (Semaphore *)object;
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
Semaphore_watch(PyObject *object, PyObject *unused)
{
    (void)unused;
    Semaphore *self = (Semaphore *)object;
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
Semaphore_close(PyObject *object, PyObject *unused)
{
    (void)unused;
    ((Semaphore *)object)->level = -1;
    return none();
}

/* -- making -------------------------------------------------------------------------------------- */

static PyObject *
Semaphore_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    PyObject *memory;
    int level;
    unsigned long long most;
    if (kwargs != NULL && PyDict_Size(kwargs) > 0) {
        PyErr_SetString(PyExc_TypeError, "Semaphore() takes no keyword arguments");
        return NULL;
    }
    if (!PyArg_ParseTuple(args, "OKi:Semaphore", &memory, &most, &level))
        return NULL;
    allocfunc allocate = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
    Semaphore *self = (Semaphore *)allocate(type, 0);
    if (self == NULL)
        return NULL;
    if (hold_memory(memory, sizeof(struct words), sizeof(struct slot), &self->view) < 0) {
        Py_DECREF(self);
        return NULL;
    }
    self->words = self->view.buf;
    self->slots = ((size_t)self->view.len - sizeof(struct words)) / sizeof(struct slot);
    self->most = most;
    self->level = level;
    return (PyObject *)self;
}

static void
Semaphore_dealloc(PyObject *object)
{
    free_object(object, &((Semaphore *)object)->view);
}

static PyMethodDef methods[] = {
    {"acquire", (PyCFunction)(void (*)(void))Semaphore_acquire, METH_FASTCALL | METH_KEYWORDS,
     "acquire(block=True, timeout=None)\n--\n\nSee `procession.plugin.Primitive.acquire`."},
    {"release", Semaphore_release, METH_NOARGS,
     "release()\n--\n\nSee `procession.plugin.Primitive.release`."},
    {"value", Semaphore_value, METH_NOARGS, "value()\n--\n\nReturn how many units are free."},
    {"count", Semaphore_count, METH_NOARGS, "count()\n--\n\nReturn how often it is held here."},
    {"held", Semaphore_held, METH_NOARGS,
     "held()\n--\n\nReturn the records of all holders, each with its number of units."},
    {"watch", Semaphore_watch, METH_NOARGS,
     "watch()\n--\n\nKeep the descriptor up to date from now on."},
    {"close", Semaphore_close, METH_NOARGS, "close()\n--\n\nForget the descriptor."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot slots[] = {
    {Py_tp_new, Semaphore_new},
    {Py_tp_dealloc, Semaphore_dealloc},
    {Py_tp_methods, methods},
    {Py_tp_doc,
     "Semaphore(memory, most, level, /)\n--\n\n"
     "A semaphore in *memory*, which is zero at first; *level* is a descriptor, or -1."},
    {0, NULL},
};

PyType_Spec semaphore_spec = {
    .name = "procession_ring._native.Semaphore",
    .basicsize = sizeof(Semaphore),
    .flags = Py_TPFLAGS_DEFAULT,
    .slots = slots,
};
