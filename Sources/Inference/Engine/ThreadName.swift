import CThreads

/// The name of the calling thread, as debuggers and `top -H` show it; it is cut to 15 bytes.
///
/// Foundation's `Thread.name` is lost if the new thread runs before the thread that started it sets the name.
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
