# mypy: ignore-errors
"""Workers that take tasks from one queue and put results into another, until told to stop."""

import sys
from multiprocessing import JoinableQueue, Process, Queue, current_process, set_start_method


def calculate(function, arguments):
    return f"{function.__name__}{arguments} = {function(*arguments)}"


def work(tasks, results):
    for function, arguments in iter(tasks.get, "STOP"):
        results.put(calculate(function, arguments))


def multiply(a, b):
    return a * b


def add(a, b):
    return a + b


def consume(queue, seen):
    while True:
        item = queue.get()
        if item is None:
            queue.task_done()
            return
        seen.put((current_process().name.startswith("consumer"), item))
        queue.task_done()


if __name__ == "__main__":
    set_start_method(sys.argv[1])
    tasks, results = Queue(), Queue()
    work_to_do = [(multiply, (n, 7)) for n in range(10)] + [(add, (n, 8)) for n in range(5)]
    for task in work_to_do:
        tasks.put(task)
    workers = [Process(target=work, args=(tasks, results), daemon=True) for _ in range(2)]
    for worker in workers:
        worker.start()
    for line in sorted(results.get() for _ in work_to_do):
        print(line)
    for _ in workers:
        tasks.put("STOP")
    for worker in workers:
        worker.join()
    print([worker.exitcode for worker in workers])

    queue, seen = JoinableQueue(), Queue()
    consumer = Process(target=consume, args=(queue, seen), name="consumer")
    consumer.start()
    for item in (*"abc", None):
        queue.put(item)
    queue.join()
    consumer.join()
    print([seen.get() for _ in range(3)], consumer.name, consumer.exitcode)
