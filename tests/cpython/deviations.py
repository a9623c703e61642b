"""Which of the interpreter's tests of multiprocessing fail on procession, and why.

A name may be a method of a class or a whole class; those of other versions of Python count as well.
"""

from __future__ import annotations

#: By reason: tests that fail, with every start method that they run on.
DEVIATIONS = {
    "about attributes of the standard package's own classes and modules": (
        "ChallengeResponseTest.test_challengeresponse",
        "OtherTest.test_answer_challenge_auth_failure",
        "TestForkAwareThreadLock.test_lock",
        "TestManagerExceptions.test_dispatch",
        "TestPoolNotLeakOnFailure.test_release_unused_processes",
        "TestSimpleQueue.test_closed",
        "WithManagerTestMyManager.test_mymanager",
        "WithManagerTestMyManager.test_mymanager_context",
        "WithManagerTestMyManager.test_mymanager_context_prestarted",
        "WithProcessesTestFinalize.test_finalize",
        "WithProcessesTestFinalize.test_thread_safety",
        "WithProcessesTestHeap.test_free_from_gc",
        "WithProcessesTestHeap.test_heap",
        "WithProcessesTestLogging.test_filename",
        "WithProcessesTestPool.test_make_pool",
        "WithProcessesTestPool.test_resource_warning",
        "WithProcessesTestPoolWorkerLifetime.test_pool_worker_lifetime",
        "WithProcessesTestProcess.test_forkserver_sigint",
        "WithProcessesTestProcess.test_forkserver_sigkill",
        "WithProcessesTestSharedMemory.test_shared_memory_ShareableList_basics",
        "WithProcessesTestSharedMemory.test_shared_memory_basics",
        "WithProcessesTestSharedMemory.test_shared_memory_name_with_embedded_null",
        "WithProcessesTestSharedMemory.test_shared_memory_recreate",
        "WithProcessesTestSubclassingProcess.test_stderr_flush",  # the name of the test's file
        "WithThreadsTestPool.test_make_pool",
        "WithThreadsTestPool.test_resource_warning",
        "_TestImportStar.test_import",
    ),
    "about the tracker process, which there is none of": (
        "TestResourceTracker",
        "WithProcessesTestSharedMemory.test_shared_memory_cleaned_after_process_termination",
        "WithProcessesTestSharedMemory.test_shared_memory_tracking",
    ),
    "what cannot be pickled is raised by put": (
        "WithProcessesTestQueue.test_queue_feeder_donot_stop_onexc",
        "WithProcessesTestQueue.test_queue_feeder_on_queue_feeder_error",
    ),
    "a lock goes to a child of every start method": ("TestStartMethod.test_mixed_startmethod",),
    "the start methods are in another order": ("TestStartMethod.test_get_all",),
    "the default context follows the selection, and its processes are called Process": (
        "TestStartMethod.test_set_get",
    ),
    "closing a queue closes it, also one that was not used": (
        "WithManagerTestQueue.test_closed_queue_empty_exceptions",
        "WithProcessesTestQueue.test_closed_queue_empty_exceptions",
        "WithThreadsTestQueue.test_closed_queue_empty_exceptions",
    ),
    "a manager that was not started raises AssertionError": (
        "WithProcessesTestSharedMemory.test_shared_memory_SharedMemoryManager_basics",
    ),
}
