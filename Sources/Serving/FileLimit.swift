import Foundation

/// The number of files and connections that this process may have open.
package enum FileLimit {
    /// Allows as many as the system lets this process have, and at most `most`: systems begin with about a thousand, for
    /// programs that use an old interface, and a server needs one for each connection.
    ///
    /// - Returns: the number.
    @discardableResult
    package static func raise(upTo most: Int = 65_536) -> Int {
        var limit = rlimit()
        unsafe getrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit)
        let wanted = min(limit.rlim_max, rlim_t(most))
        if limit.rlim_cur < wanted {
            limit.rlim_cur = wanted
            unsafe setrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit)
        }
        return Int(clamping: limit.rlim_cur)
    }
}
