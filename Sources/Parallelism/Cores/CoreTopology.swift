import Foundation

/// The memory nodes of a host, with the cores of each that a process may use.
///
/// A memory node is a part of the host's memory that some cores reach faster than others: one for each socket, or several
/// where a socket is divided.
package struct CoreTopology: Equatable, Sendable {
    package struct Node: Equatable, Sendable {
        /// The system's number of the node.
        package let number: Int
        /// The logical processors of each core: two where cores run two threads at a time.
        package let cores: [[Int]]

        package init(number: Int, cores: [[Int]]) {
            self.number = number
            self.cores = cores
        }
    }

    /// The nodes that have cores for this process, by number.
    package let nodes: [Node]
    /// True if the process may use every logical processor of the host.
    package let isWhole: Bool

    package init(nodes: [Node], isWhole: Bool = true) {
        self.nodes = nodes
        self.isWhole = isWhole
    }

    /// Reads the topology as Linux shows it in files.
    ///
    /// - Parameters:
    ///   - root: The folder that has `node` and `cpu`.
    ///   - allowed: The logical processors that the process may use.
    /// - Returns: `nil` where the files are missing, as on other systems, or say something else.
    package init?(at root: String = "/sys/devices/system", allowed: [Int]) {
        let usable = Set(allowed)
        guard let online = Self.list(root + "/node/online"), let all = Self.list(root + "/cpu/online") else {
            return nil
        }
        var nodes: [Node] = []
        for number in online {
            guard let processors = Self.list("\(root)/node/node\(number)/cpulist") else { return nil }
            var (cores, seen) = ([[Int]](), Set<Int>())
            for processor in processors where usable.contains(processor) && !seen.contains(processor) {
                let siblings = Self.list("\(root)/cpu/cpu\(processor)/topology/thread_siblings_list") ?? [processor]
                let core = siblings.filter { usable.contains($0) && processors.contains($0) && !seen.contains($0) }
                seen.formUnion(core + [processor])
                cores.append(core.contains(processor) ? core : [processor])
            }
            if !cores.isEmpty { nodes.append(Node(number: number, cores: cores)) }
        }
        guard !nodes.isEmpty else { return nil }
        self.init(nodes: nodes, isWhole: usable.isSuperset(of: all))
    }

    /// Returns the numbers that a file lists, as in `0-3,8`, in ascending order.
    private static func list(_ path: String) -> [Int]? {
        guard let text = try? String(contentsOfFile: path, encoding: .utf8) else { return nil }
        var numbers: Set<Int> = []
        for part in text.trimmingCharacters(in: .whitespacesAndNewlines).split(separator: ",") {
            let ends = part.split(separator: "-", omittingEmptySubsequences: false).map { Int($0) }
            guard let first = ends[0], let last = ends[ends.count - 1], ends.count <= 2, 0 <= first, first <= last,
                last < maxProcessors
            else { return nil }
            numbers.formUnion(first...last)
        }
        return numbers.sorted()
    }

    /// More logical processors than this are taken for a damaged file.
    private static let maxProcessors = 1 << 16
}
