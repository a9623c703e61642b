/* The type `Shortcuts`: what a connection around an `End` mostly does, in one step. It comes first
   among the bases of the connection's class, so that its methods hide those of the same names. Where
   anything is out of the ordinary they call those, which the connection has under other names, too;
   see `Channel.shortcuts`. */

#include "end.h"

typedef struct {
    PyObject_HEAD
    /* An `End`, or NULL where the connection has to look at everything itself. */
    PyObject *out, *in;
    /* Whether objects are pickled as the pickle module does it, and whether descriptors in them
       are looked for. */
    bool pickles, carries;
} Shortcuts;

/* Of `procession._messages.pickling`: its names, some of which come to mean something else; and `loads`
   of the pickle module. */
static PyObject *pickling, *unpickle;
static PyObject *protocol;
static PyObject *encode_name, *ndarray_name, *buffers_name, *watching_name, *loads_name;
static PyObject *send_name, *send_bytes_name, *recv_name, *recv_bytes_name;
static PyObject *send_pickled_name, *send_despite_name, *recv_joined_name, *fail_name, *clear_name;

/* A tuple of the one name "buffer_callback". */
static PyObject *keywords;

/* Collectors of buffers, for connections that do not carry descriptors and for those that do: made
   when they are first needed, or when they were left to somebody; not there while they are in use. */
static PyObject *idle_collectors[2];

typedef PyObject *(*fast_function)(PyObject *, PyObject *const *, Py_ssize_t, PyObject *);

/* Call *function*, which mostly is one of the pickle module's own: to make a dictionary of keywords
   for those costs a quarter of what they do. */
static PyObject *
call(PyObject *function, PyObject *const *args, Py_ssize_t count, PyObject *names)
{
    if (Py_IS_TYPE(function, &PyCFunction_Type) &&
        PyCFunction_GetFlags(function) == (METH_FASTCALL | METH_KEYWORDS)) {
        fast_function fast =
            (fast_function)(void (*)(void))PyCFunction_GetFunction(function);
        return fast(PyCFunction_GetSelf(function), args, count, names);
    }
    PyObject *result = NULL, *named = NULL, *positional = PyTuple_New(count);
    if (positional == NULL)
        return NULL;
    for (Py_ssize_t i = 0; i < count; i++)
        PyTuple_SetItem(positional, i, Py_NewRef(args[i]));
    if (names != NULL) {
        named = PyDict_New();
        if (named == NULL)
            goto done;
        for (Py_ssize_t i = 0; i < PyTuple_Size(names); i++)
            if (PyDict_SetItem(named, PyTuple_GetItem(names, i), args[count + i]) < 0)
                goto done;
    }
    result = PyObject_Call(function, positional, named);
done:
    Py_XDECREF(named);
    Py_DECREF(positional);
    return result;
}

static PyObject *
the_long_way(PyObject *self, PyObject *name, PyObject *const *args, Py_ssize_t count,
             PyObject *names)
{
    PyObject *method = PyObject_GetAttr(self, name);
    if (method == NULL)
        return NULL;
    PyObject *result = call(method, args, count, names);
    Py_DECREF(method);
    return result;
}

/* Have the connection give what its end has raised the final shape. */
static PyObject *
fail(PyObject *self)
{
    if (!PyErr_ExceptionMatches(PyExc_OSError) && !PyErr_ExceptionMatches(PyExc_EOFError))
        return NULL;
    PyObject *type, *error, *traceback;
    PyErr_Fetch(&type, &error, &traceback);
    PyErr_NormalizeException(&type, &error, &traceback);
    PyObject *result = PyObject_CallMethodObjArgs(self, fail_name, error, NULL);
    Py_XDECREF(type);
    Py_XDECREF(error);
    Py_XDECREF(traceback);
    return result; /* NULL: it raises */
}

static PyObject *
send_short(PyObject *self, PyObject *end, PyObject *body)
{
    Py_INCREF(end); /* the connection may be given another way meanwhile */
    PyObject *result = send_message((End *)end, body, NULL, NULL);
    Py_DECREF(end);
    return result == NULL ? fail(self) : result;
}

static PyObject *
Shortcuts_send_bytes(PyObject *object, PyObject *const *args, Py_ssize_t count, PyObject *names)
{
    PyObject *end = ((Shortcuts *)object)->out;
    if (end == NULL || count != 1 || names != NULL || !PyBytes_CheckExact(args[0]))
        return the_long_way(object, send_bytes_name, args, count, names);
    return send_short(object, end, args[0]);
}

static PyObject *
take_collector(bool carries)
{
    PyObject *collector = idle_collectors[carries];
    idle_collectors[carries] = NULL;
    if (collector != NULL)
        return collector;
    return PyObject_CallNoArgs(PyDict_GetItem(pickling, carries ? watching_name : buffers_name));
}

static void
keep_collector(bool carries, PyObject *collector)
{
    if (idle_collectors[carries] == NULL && PyList_Size(collector) == 0)
        idle_collectors[carries] = collector;
    else
        Py_DECREF(collector);
}

/* What it has collected goes nowhere. An exception that is set stays. */
static void
clear_collector(PyObject *collector)
{
    PyObject *type, *error, *traceback;
    PyErr_Fetch(&type, &error, &traceback);
    PyObject *result = PyObject_CallMethodObjArgs(collector, clear_name, NULL);
    if (result == NULL)
        PyErr_WriteUnraisable(collector);
    Py_XDECREF(result);
    PyErr_Restore(type, error, traceback);
}

static PyObject *
send_despite(PyObject *self, PyObject *object, PyObject *collector)
{
    if (!PyErr_ExceptionMatches(PyExc_Exception))
        return NULL;
    PyObject *type, *error, *traceback;
    PyErr_Fetch(&type, &error, &traceback);
    PyErr_NormalizeException(&type, &error, &traceback);
    if (traceback != NULL)
        PyException_SetTraceback(error, traceback);
    PyObject *result =
        PyObject_CallMethodObjArgs(self, send_despite_name, object, collector, error, NULL);
    Py_XDECREF(type);
    Py_XDECREF(error);
    Py_XDECREF(traceback);
    return result;
}

static PyObject *
Shortcuts_send(PyObject *object, PyObject *const *args, Py_ssize_t count, PyObject *names)
{
    Shortcuts *self = (Shortcuts *)object;
    if (self->out == NULL || !self->pickles || count != 1 || names != NULL ||
        (PyObject *)Py_TYPE(args[0]) == PyDict_GetItem(pickling, ndarray_name))
        return the_long_way(object, send_name, args, count, names);
    bool carries = self->carries;
    PyObject *collector = take_collector(carries), *result;
    if (collector == NULL)
        return NULL;
    PyObject *encode = Py_NewRef(PyDict_GetItem(pickling, encode_name));
    PyObject *body = call(encode, (PyObject *[]){args[0], protocol, collector}, 2, keywords);
    Py_DECREF(encode);
    if (body == NULL) {
        result = send_despite(object, args[0], collector);
        if (result == NULL)
            clear_collector(collector);
    }
    else if (PyList_Size(collector) > 0 || self->out == NULL || !PyBytes_CheckExact(body))
        result = PyObject_CallMethodObjArgs(object, send_pickled_name, body, collector, NULL);
    else
        result = send_short(object, self->out, body);
    keep_collector(carries, collector);
    Py_XDECREF(body);
    return result;
}

/* Receive a body, and buffers if there are any. */
static PyObject *
receive_any(PyObject *self, PyObject *end, PyObject **buffers)
{
    *buffers = NULL;
    Py_INCREF(end);
    PyObject *body = receive_message((End *)end, NULL, NULL, LONGEST_MESSAGE, buffers);
    Py_DECREF(end);
    return body == NULL ? fail(self) : body;
}

static PyObject *
Shortcuts_recv_bytes(PyObject *object, PyObject *const *args, Py_ssize_t count, PyObject *names)
{
    PyObject *end = ((Shortcuts *)object)->in;
    if (end == NULL || count != 0 || names != NULL)
        return the_long_way(object, recv_bytes_name, args, count, names);
    PyObject *buffers, *body = receive_any(object, end, &buffers), *result;
    if (body == NULL || (buffers == NULL && PyBytes_CheckExact(body)))
        return body;
    if (buffers == NULL)
        result = PyBytes_FromObject(body);
    else
        result = PyObject_CallMethodObjArgs(object, recv_joined_name, body, buffers, NULL);
    Py_DECREF(body);
    Py_XDECREF(buffers);
    return result;
}

/* Where a pickle of a plain array says that it is one; see `procession._messages.array_codec`. */
#define ARRAY_MARK 2

static bool
is_plain_pickle(PyObject *body)
{
    return PyBytes_CheckExact(body) && PyBytes_Size(body) > ARRAY_MARK &&
           PyBytes_AsString(body)[ARRAY_MARK] != '(';
}

static PyObject *
Shortcuts_recv(PyObject *object, PyObject *const *args, Py_ssize_t count, PyObject *names)
{
    PyObject *end = ((Shortcuts *)object)->in;
    if (end == NULL || count != 0 || names != NULL)
        return the_long_way(object, recv_name, args, count, names);
    PyObject *buffers, *body = receive_any(object, end, &buffers), *result;
    if (body == NULL)
        return NULL;
    if (buffers == NULL && is_plain_pickle(body))
        result = call(unpickle, &body, 1, NULL);
    else
        result = PyObject_CallFunctionObjArgs(PyDict_GetItem(pickling, loads_name), body, buffers,
                                              NULL);
    Py_DECREF(body);
    Py_XDECREF(buffers);
    return result;
}

/* Read None, or an `End`, which becomes a new reference in *end*. */
static bool
read_end(PyObject *argument, PyObject **end)
{
    *end = NULL;
    if (argument == Py_None)
        return true;
    if (!Py_IS_TYPE(argument, (PyTypeObject *)end_type)) {
        PyErr_SetString(PyExc_TypeError, "an End is wanted, or None");
        return false;
    }
    *end = Py_NewRef(argument);
    return true;
}

static PyObject *
Shortcuts_shorten(PyObject *object, PyObject *const *args, Py_ssize_t count)
{
    Shortcuts *self = (Shortcuts *)object;
    PyObject *out, *in, *old_out = self->out, *old_in = self->in;
    if (count != 4) {
        PyErr_SetString(PyExc_TypeError, "shorten() takes two ends, or None, and two truth values");
        return NULL;
    }
    int pickles = PyObject_IsTrue(args[2]), carries = PyObject_IsTrue(args[3]);
    if (pickles < 0 || carries < 0 || !read_end(args[0], &out))
        return NULL;
    if (!read_end(args[1], &in)) {
        Py_XDECREF(out);
        return NULL;
    }
    self->out = out;
    self->in = in;
    self->pickles = pickles;
    self->carries = carries;
    Py_XDECREF(old_out);
    Py_XDECREF(old_in);
    return none();
}

static PyObject *
Shortcuts_prepare(PyObject *unused, PyObject *namespace)
{
    (void)unused;
    PyObject *names[] = {encode_name, ndarray_name, buffers_name, watching_name, loads_name};
    for (size_t i = 0; i < Py_ARRAY_LENGTH(names); i++)
        if (PyDict_GetItemWithError(namespace, names[i]) == NULL) {
            if (!PyErr_Occurred())
                PyErr_SetObject(PyExc_KeyError, names[i]);
            return NULL;
        }
    PyObject *new_protocol = PyDict_GetItemString(namespace, "PROTOCOL");
    PyObject *new_unpickle = PyDict_GetItemString(namespace, "_loads");
    if (new_protocol == NULL || new_unpickle == NULL) {
        PyErr_SetString(PyExc_KeyError, "PROTOCOL or _loads");
        return NULL;
    }
    /* The earlier ones, if there are any, may be in use. */
    pickling = Py_NewRef(namespace);
    protocol = Py_NewRef(new_protocol);
    unpickle = Py_NewRef(new_unpickle);
    return none();
}

static void
Shortcuts_dealloc(PyObject *object)
{
    Shortcuts *self = (Shortcuts *)object;
    Py_CLEAR(self->out);
    Py_CLEAR(self->in);
    PyTypeObject *type = Py_TYPE(object);
    freefunc release = (freefunc)PyType_GetSlot(type, Py_tp_free);
    release(object);
    Py_DECREF(type);
}

#define METHOD(function) (PyCFunction)(void (*)(void))function

static PyMethodDef methods[] = {
    {"send", METHOD(Shortcuts_send), METH_FASTCALL | METH_KEYWORDS,
     "send($self, obj)\n--\n\nSee `procession.Connection.send`."},
    {"send_bytes", METHOD(Shortcuts_send_bytes), METH_FASTCALL | METH_KEYWORDS,
     "send_bytes($self, buf, offset=0, size=None)\n--\n\n"
     "See `procession.Connection.send_bytes`."},
    {"recv", METHOD(Shortcuts_recv), METH_FASTCALL | METH_KEYWORDS,
     "recv($self, *, lease=False)\n--\n\nSee `procession.Connection.recv`."},
    {"recv_bytes", METHOD(Shortcuts_recv_bytes), METH_FASTCALL | METH_KEYWORDS,
     "recv_bytes($self, maxlength=None)\n--\n\nSee `procession.Connection.recv_bytes`."},
    {"_shorten", METHOD(Shortcuts_shorten), METH_FASTCALL,
     "_shorten(out, in, pickles, carries, /)\n--\n\n"
     "Send through one `End` and receive through another, or leave it to the connection."},
    {"prepare", Shortcuts_prepare, METH_O | METH_STATIC,
     "prepare(pickling, /)\n--\n\nUse what `procession._messages.pickling` has, and comes to have."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot slots[] = {
    {Py_tp_dealloc, Shortcuts_dealloc},
    {Py_tp_methods, methods},
    {Py_tp_doc, "What a connection around an `End` mostly does; see `Channel.shortcuts`."},
    {0, NULL},
};

PyType_Spec shortcuts_spec = {
    .name = "procession_ring._native.Shortcuts",
    .basicsize = sizeof(Shortcuts),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE,
    .slots = slots,
};

bool
name_shortcuts(void)
{
    static const struct {
        PyObject **name;
        const char *text;
    } all[] = {
        {&encode_name, "_encode"},
        {&ndarray_name, "_ndarray"},
        {&buffers_name, "Buffers"},
        {&watching_name, "Watching"},
        {&loads_name, "loads"},
        {&send_name, "_send_any"},
        {&send_bytes_name, "_send_any_bytes"},
        {&recv_name, "_recv_any"},
        {&recv_bytes_name, "_recv_any_bytes"},
        {&send_pickled_name, "_send_pickled"},
        {&send_despite_name, "_send_despite"},
        {&recv_joined_name, "_as_bytes"},
        {&fail_name, "_fail"},
        {&clear_name, "clear"},
    };
    for (size_t i = 0; i < Py_ARRAY_LENGTH(all); i++)
        if ((*all[i].name = PyUnicode_InternFromString(all[i].text)) == NULL)
            return false;
    keywords = Py_BuildValue("(s)", "buffer_callback");
    return keywords != NULL;
}
