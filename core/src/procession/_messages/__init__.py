"""What goes through connections and queues: pickles, their buffers and descriptors, leases."""
