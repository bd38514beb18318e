import Foundation

/// The memory that this process may use: that of the host, or less where a cgroup of the process has a limit, as in a
/// container or in a service with `MemoryMax=`.
///
/// A cgroup with a limit ends the process that exceeds it, however much memory the host has.
package struct HostMemory: Equatable, Sendable {
    /// The bytes that the process could ever use: the least of the host's memory and all limits.
    package let total: Int
    /// The bytes that the process can use beside what is in use: what the host can give without swapping or, if it is
    /// less, what a cgroup has left below its limit. Files that can be read again, such as mapped weights, are not in use.
    package let available: Int

    package init(total: Int, available: Int) {
        self.total = total
        self.available = min(available, total)
    }

    /// The memory when this was first asked for. It is read once, so that everything that divides it divides the same
    /// number.
    package static let current = HostMemory(
        physical: Int(clamping: ProcessInfo.processInfo.physicalMemory), read: Self.text)

    /// Reads the memory as Linux shows it in files. Where they are missing, as on other systems, all memory of the host is
    /// taken for available.
    ///
    /// - Parameters:
    ///   - physical: The bytes of the host's memory, if `/proc/meminfo` does not tell.
    ///   - read: Returns the text of a file; `nil` if there is none.
    package init(physical: Int, read: (_ path: String) -> String?) {
        let host = Self.numbers(in: read("/proc/meminfo"), unit: 1024)
        var total = host["MemTotal:"] ?? physical
        var available = host["MemAvailable:"] ?? total
        for limit in Self.limits(of: read("/proc/self/cgroup") ?? "", read) {
            total = min(total, limit.bytes)
            available = min(available, max(limit.bytes - limit.used, 0))
        }
        self.init(total: total, available: available)
    }

    /// Returns the memory of the process where others on the same host need as much: an even part of this one.
    package func divided(among processes: Int) -> HostMemory {
        HostMemory(total: total / max(processes, 1), available: available / max(processes, 1))
    }

    // MARK: - Control groups

    /// A limit of a cgroup, and the bytes that the cgroup uses and could not give back.
    private struct Limit {
        let bytes: Int
        let used: Int
    }

    /// The files of a version of cgroups.
    private struct Files {
        let root: String
        let limits: [String]
        let usage: String
        /// The line of `memory.stat` with the bytes of files that were not read for long, which the system takes back first.
        let reclaimable: String
    }

    private static let version1 = Files(
        root: "/sys/fs/cgroup/memory", limits: ["memory.limit_in_bytes"], usage: "memory.usage_in_bytes",
        reclaimable: "total_inactive_file")
    /// Above `memory.high` the system slows the process down until it is of no use, so this is a limit like `memory.max`.
    private static let version2 = Files(
        root: "/sys/fs/cgroup", limits: ["memory.max", "memory.high"], usage: "memory.current",
        reclaimable: "inactive_file")

    /// Returns the limits of all cgroups that a process is in: its own, and those above.
    ///
    /// - Parameter list: The text of `/proc/self/cgroup`: lines such as `0::/system.slice` (version 2) or
    ///   `4:memory:/docker/0f` (version 1).
    private static func limits(of list: String, _ read: (String) -> String?) -> [Limit] {
        list.split(separator: "\n").flatMap { line -> [Limit] in
            let fields = line.split(separator: ":", maxSplits: 2, omittingEmptySubsequences: false)
            guard fields.count == 3 else { return [] }
            let files: Files
            if fields[0] == "0", fields[1].isEmpty {
                files = version2
            } else if fields[1].split(separator: ",").contains("memory") {
                files = version1
            } else {
                return []
            }
            return folders(of: String(fields[2]), in: files.root).compactMap { limit(of: $0, files, read) }
        }
    }

    /// Returns the folders of a cgroup and of those above, the root last. A container often shows its own cgroup as the
    /// root, although the path is that on the host; the other folders are then missing.
    private static func folders(of path: String, in root: String) -> [String] {
        let names = path.split(separator: "/")
        // The process is outside of what this view of the cgroups shows.
        if names.contains("..") { return [root] }
        return (0...names.count).reversed().map { count in
            ([root] + names.prefix(count).map(String.init)).joined(separator: "/")
        }
    }

    private static func limit(of folder: String, _ files: Files, _ read: (String) -> String?) -> Limit? {
        let limits = files.limits.compactMap { bytes(in: read("\(folder)/\($0)")) }
        guard let least = limits.min() else { return nil }
        let usage = bytes(in: read("\(folder)/\(files.usage)")) ?? 0
        let reclaimable = numbers(in: read("\(folder)/memory.stat"), unit: 1)[files.reclaimable] ?? 0
        return Limit(bytes: least, used: max(usage - reclaimable, 0))
    }

    /// Returns the number in a file; `nil` for `max` and for numbers so large that they stand for no limit.
    private static func bytes(in text: String?) -> Int? {
        let number = text.flatMap { Int($0.trimmingCharacters(in: .whitespacesAndNewlines)) }
        return number.flatMap { (0..<unlimited).contains($0) ? $0 : nil }
    }

    /// Version 1 writes the largest multiple of the page size where there is no limit.
    private static let unlimited = 1 << 60

    /// Returns the numbers of lines such as `MemTotal: 16 kB` or `inactive_file 4096`, by their first words.
    private static func numbers(in text: String?, unit: Int) -> [String: Int] {
        var numbers: [String: Int] = [:]
        for line in (text ?? "").split(separator: "\n") {
            let words = line.split(separator: " ", omittingEmptySubsequences: true)
            guard words.count > 1, let number = Int(words[1]), (0..<unlimited / unit).contains(number) else { continue }
            numbers[String(words[0])] = number * unit
        }
        return numbers
    }

    private static func text(of path: String) -> String? { try? String(contentsOfFile: path, encoding: .utf8) }
}
