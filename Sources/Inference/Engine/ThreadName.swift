import CThreads

/// What debuggers and `top -H` call the thread that asks; 15 bytes at most.
///
/// Foundation's `Thread.name` gets lost where the new thread is quicker than the one that started it.
package enum ThreadName {
    package static var current: String {
        get {
            unsafe withUnsafeTemporaryAllocation(of: CChar.self, capacity: 64) { name in
                unsafe braid_get_thread_name(name.baseAddress!, name.count)
                return unsafe String(cString: name.baseAddress!)
            }
        }
        set { unsafe braid_set_thread_name(newValue) }
    }
}
