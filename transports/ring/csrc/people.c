/* See people.h. */

#include "people.h"

#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

struct holder me;
uint64_t my_mark;
unsigned my_generation;

static PyObject *identify, *bury;

int
find_out_who_i_am(void)
{
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
    my_mark = mark_of(me.pid, me.start);
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

/* Of *start*, as many bits as *mask* has are compared. */
static bool
has_ended_by(uint64_t pid, uint64_t start, uint64_t mask)
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

bool
has_ended(uint64_t pid, uint64_t start)
{
    return has_ended_by(pid, start, UINT64_MAX);
}

bool
mark_has_ended(uint64_t mark)
{
    return has_ended_by(pid_of(mark), mark, UINT32_MAX);
}

/* The formats with # mean different things in different versions of the stable interface. */
PyObject *
record_of(const struct holder *holder)
{
    return PyBytes_FromStringAndSize((const char *)holder, sizeof *holder);
}

void
raise_owner_died(int kind, const struct holder *dead, uint64_t units)
{
    PyObject *record = record_of(dead), *error = NULL;
    if (record != NULL)
        error = PyObject_CallFunction(bury, "iNK", kind, record, (unsigned long long)units);
    if (error != NULL) {
        PyErr_SetObject((PyObject *)Py_TYPE(error), error);
        Py_DECREF(error);
    }
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
