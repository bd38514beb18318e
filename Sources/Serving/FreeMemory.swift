import Foundation

/// Returns memory that requests have freed to the system.
///
/// The C library keeps freed memory for later allocations, in as many arenas as threads have met. After a burst of
/// connections or large requests that can be several times what the server needs.
struct FreeMemory {
    /// The size above the smallest one from which freed memory is returned, in bytes.
    private static let slack = 16 << 20
    /// The least that returning memory must have yielded to be tried again soon, in bytes.
    private static let worthwhile = 4 << 20
    private static let shortPause = Duration.seconds(5)
    private static let longPause = Duration.seconds(80)

    /// The smallest resident size that was seen, in bytes.
    private var smallest = Self.residentBytes
    private var pause = Self.shortPause

    /// Looks at the resident size every few seconds, until the task is cancelled.
    static func keepReturning() async {
        var memory = FreeMemory()
        while (try? await Task.sleep(for: memory.pause)) != nil { await memory.returnToSystem() }
    }

    private mutating func returnToSystem() async {
        let before = Self.residentBytes
        smallest = min(smallest, before)
        guard before > smallest + Self.slack, let trim = Self.trim else {
            pause = Self.shortPause
            return
        }
        // It takes the locks of all arenas in turn, which the threads of the cooperative pool should not wait for.
        await withCheckedContinuation { (done: CheckedContinuation<Void, Never>) in
            DispatchQueue.global(qos: .utility).async {
                _ = trim(0)
                done.resume()
            }
        }
        // What is in use, such as pages of the KV cache, is looked at less and less often.
        let yield = before - Self.residentBytes
        pause = yield >= Self.worthwhile ? Self.shortPause : min(pause * 2, Self.longPause)
    }

    /// `malloc_trim`, which glibc has, in a header that Swift does not import; `nil` with other C libraries.
    private static let trim: (@convention(c) (Int) -> CInt)? = {
        guard let symbol = unsafe dlsym(UnsafeMutableRawPointer(bitPattern: 0), "malloc_trim") else { return nil }
        return unsafe unsafeBitCast(symbol, to: (@convention(c) (Int) -> CInt).self)
    }()

    /// The memory of this process that is in RAM and belongs to no file, in bytes; 0 where the system does not tell. Weights
    /// are files.
    private static var residentBytes: Int {
        let text = (try? String(contentsOfFile: "/proc/self/statm", encoding: .utf8)) ?? ""
        let fields = text.split(separator: " ")
        guard fields.count > 2, let all = Int(fields[1]), let shared = Int(fields[2]) else { return 0 }
        return (all - shared) * sysconf(Int32(_SC_PAGESIZE))
    }
}
