/* The module procession_ring._native: `End` and `Shortcuts` for connections, `Lane` for queues, `Lock` and
   `Semaphore`. */

#include "support.h"

#include <sys/mman.h>
#include <sys/stat.h>

#include <stddef.h>

PyObject *busy_error;
PyObject *broken_error;
PyObject *too_long_error;
PyObject *end_type;
unsigned fork_generation;

static void
count_fork(void)
{
    fork_generation++;
}

void *
map_all(int fd, size_t *length, bool populated)
{
    struct stat status;
    if (fstat(fd, &status) < 0) {
        PyErr_SetFromErrno(PyExc_OSError);
        return NULL;
    }
    if (status.st_size < HEADER_SIZE) {
        PyErr_Format(PyExc_OSError, "not the memory of a ring: it has %lld bytes",
                     (long long)status.st_size);
        return NULL;
    }
    *length = (size_t)status.st_size;
    int flags = populated ? MAP_SHARED | MAP_POPULATE : MAP_SHARED;
    void *map = mmap(NULL, *length, PROT_READ | PROT_WRITE, flags, fd, 0);
    if (map == MAP_FAILED) {
        PyErr_SetFromErrno(PyExc_OSError);
        return NULL;
    }
    return map;
}

uint64_t
checked_size(const void *header, uint64_t magic, size_t offset, size_t length)
{
    uint64_t words[2];
    memcpy(words, header, sizeof words);
    uint64_t size = words[1];
    if (words[0] != magic || size < HEADER_SIZE || (size & (size - 1)) != 0 ||
        size > length - HEADER_SIZE || offset > length - HEADER_SIZE - size) {
        PyErr_SetString(PyExc_OSError, "not the memory of a ring, or of another version of it");
        return 0;
    }
    return size;
}

/* A sender killed between taking `armed` and ringing lets us wait in vain; it has had time
   enough after this many milliseconds. */
#define LONGEST_RINGING 20

void
settle(struct alarm *alarm, int bell, _Atomic uint64_t *tail, _Atomic uint64_t *head)
{
    bool armed = atomic_load(&alarm->armed), watched = atomic_load(&alarm->watched);
    if (!armed && watched) {
        /* Whoever took `armed` rings or is about to; a ring that came after this would
           be there with nothing to receive. */
        struct pollfd ready = {.fd = bell, .events = POLLIN};
        poll(&ready, 1, LONGEST_RINGING);
    }
    if (!armed || watched) {
        /* One that came too late all the same is silenced now. */
        silence(bell);
        atomic_store(&alarm->armed, 1);
    }
    atomic_thread_fence(memory_order_seq_cst);
    if (atomic_load(tail) != atomic_load(head)) {
        /* It may have been meant for others who sleep, and we have silenced it. */
        uint32_t armed = 1;
        if (atomic_compare_exchange_strong(&alarm->armed, &armed, 0))
            ring(bell);
    }
}

/* Whoever calls it from Python may let them overlap. */
static void
copy_apart(char *target, const char *source, size_t length)
{
    uintptr_t to = (uintptr_t)target, from = (uintptr_t)source;
    if ((to > from ? to - from : from - to) < length)
        memmove(target, source, length);
    else
        copy_bytes(target, source, length);
}

static PyObject *
copy(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    (void)module;
    Py_buffer target, source;
    if (count != 2) {
        PyErr_SetString(PyExc_TypeError, "copy() takes a target and a source");
        return NULL;
    }
    if (PyObject_GetBuffer(args[0], &target, PyBUF_WRITABLE) < 0)
        return NULL;
    if (PyObject_GetBuffer(args[1], &source, PyBUF_SIMPLE) < 0) {
        PyBuffer_Release(&target);
        return NULL;
    }
    PyObject *result = NULL;
    if (target.len != source.len)
        PyErr_Format(PyExc_ValueError, "%zd bytes cannot be copied to where %zd are",
                     source.len, target.len);
    else {
        if ((uint64_t)source.len < WORTH_RELEASING)
            copy_apart(target.buf, source.buf, (size_t)source.len);
        else {
            Py_BEGIN_ALLOW_THREADS
            copy_apart(target.buf, source.buf, (size_t)source.len);
            Py_END_ALLOW_THREADS
        }
        result = none();
    }
    PyBuffer_Release(&source);
    PyBuffer_Release(&target);
    return result;
}

/* The offsets of the words of both headers, for a test that compares them to the twin's. */
#define WORD(kind, word) #kind, #word, (int)offsetof(struct kind, word)
static PyObject *
offsets(PyObject *module, PyObject *unused)
{
    (void)module;
    (void)unused;
    return Py_BuildValue(
        "[(ssi),(ssi),(ssi),(ssi),(ssi),(ssi),(ssi),(ssi),(ssi),(ssi),(ssi),(ssi),(ssi),(ssi),(ssi),(ssi),(ssi),(ssi),(ssi),(ssi),(ssi),(ssi)]",
        WORD(stream, magic),
        WORD(stream, size),
        WORD(stream, lock_size),
        WORD(stream, full),
        WORD(stream, tail),
        WORD(stream, writer_cpu),
        WORD(stream, head),
        WORD(stream, reader_cpu),
        WORD(stream, alarm.armed),
        WORD(stream, alarm.watched),
        WORD(stream, room_wanted),
        WORD(stream, stopped),
        WORD(stream, left),
        WORD(stream, putting),
        WORD(stream, getting),
        WORD(lane, magic),
        WORD(lane, size),
        WORD(lane, lock_size),
        WORD(lane, tail),
        WORD(lane, head),
        WORD(lane, alarm.armed),
        WORD(lane, alarm.watched));
}
#undef WORD

static PyMethodDef methods[] = {
    {"copy", (PyCFunction)(void (*)(void))copy, METH_FASTCALL,
     "copy(target, source, /)\n--\n\nSee `procession.plugin.Lane.copy`."},
    {"offsets", offsets, METH_NOARGS,
     "offsets()\n--\n\nReturn kind of header, word and offset, for every word."},
    {"set_people", set_people, METH_VARARGS,
     "set_people(identify, bury, /)\n--\n\n"
     "Say how this process is recorded as a holder, and which error tells of a dead one."},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "procession_ring._native",
    .m_doc = "Rings in shared memory: the compiled half of procession_ring.",
    .m_size = -1,
    .m_methods = methods,
};

static int
add_type(PyObject *module, const char *name, PyType_Spec *spec)
{
    PyObject *type = PyType_FromSpec(spec);
    if (type == NULL)
        return -1;
    int failed = PyModule_AddObjectRef(module, name, type);
    Py_DECREF(type);
    return failed;
}

PyMODINIT_FUNC
PyInit__native(void)
{
    PyObject *module = PyModule_Create(&definition);
    if (module == NULL)
        return NULL;
    PyObject *errors = PyImport_ImportModule("procession.errors");
    if (errors == NULL)
        goto failed;
    busy_error = PyObject_GetAttrString(errors, "BusyConnectionError");
    broken_error = PyObject_GetAttrString(errors, "BrokenConnectionError");
    too_long_error = PyObject_GetAttrString(errors, "MessageTooLongError");
    Py_DECREF(errors);
    if (busy_error == NULL || broken_error == NULL || too_long_error == NULL)
        goto failed;
    if (add_type(module, "End", &end_spec) < 0 || add_type(module, "Lane", &lane_spec) < 0 ||
        add_type(module, "Lock", &lock_spec) < 0 ||
        add_type(module, "Semaphore", &semaphore_spec) < 0 ||
        add_type(module, "Shortcuts", &shortcuts_spec) < 0 || !name_shortcuts())
        goto failed;
    end_type = PyObject_GetAttrString(module, "End");
    if (end_type == NULL)
        goto failed;
    if (pthread_atfork(NULL, NULL, count_fork) != 0) {
        PyErr_NoMemory();
        goto failed;
    }
    return module;
failed:
    Py_DECREF(module);
    return NULL;
}
