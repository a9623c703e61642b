/* See primitive.h. */

#include "primitive.h"

int
sleep_until(struct sleepers *sleepers, uint32_t turn, int64_t until)
{
    int64_t left = until - now_ns();
    if (left < 0)
        left = 0;
    struct timespec nap = {.tv_sec = left / NANOSECONDS, .tv_nsec = left % NANOSECONDS};
    Py_BEGIN_ALLOW_THREADS
    syscall(SYS_futex, &sleepers->turn, FUTEX_WAIT, turn, &nap, NULL, 0);
    Py_END_ALLOW_THREADS
    return PyErr_CheckSignals();
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

int
read_patience(PyObject *const *args, Py_ssize_t count, PyObject *names, int64_t *longest)
{
    PyObject *block = Py_True, *timeout = Py_None;
    *longest = FOR_EVER;
    if (read_arguments(args, count, names, &block, &timeout) < 0)
        return -1;
    int blocks = PyObject_IsTrue(block);
    if (blocks < 0)
        return -1;
    if (!blocks)
        *longest = 0;
    else if (timeout != Py_None && read_timeout(timeout, longest) < 0)
        return -1;
    return 0;
}

int
hold_memory(PyObject *memory, size_t size, size_t piece, Py_buffer *view)
{
    if (PyObject_GetBuffer(memory, view, PyBUF_WRITABLE) < 0) {
        view->obj = NULL;
        return -1;
    }
    size_t length = (size_t)view->len;
    if (length >= size && (length - size) % piece == 0 && (uintptr_t)view->buf % 64 == 0)
        return 0;
    PyErr_SetString(PyExc_ValueError, "not the memory of a lock or semaphore");
    return -1;
}

void
free_object(PyObject *object, Py_buffer *view)
{
    if (view->obj != NULL)
        PyBuffer_Release(view);
    PyTypeObject *type = Py_TYPE(object);
    freefunc release = (freefunc)PyType_GetSlot(type, Py_tp_free);
    release(object);
    Py_DECREF(type);
}
