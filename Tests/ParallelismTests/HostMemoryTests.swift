import Foundation
import Parallelism
import Testing

@Suite struct `The memory of a host` {
    private static let gibibyte = 1 << 30
    /// A host of 64 GiB, of which 48 can be given.
    private static let host = ["/proc/meminfo": "MemTotal:  67108864 kB\nMemFree: 1 kB\nMemAvailable:  50331648 kB\n"]

    private func memory(_ files: [String: String], on host: [String: String] = host) -> HostMemory {
        let all = host.merging(files) { $1 }
        return HostMemory(physical: 8 * Self.gibibyte) { all[$0] }
    }

    /// Returns memory in GiB.
    private func gibibytes(_ total: Int, _ available: Int) -> HostMemory {
        HostMemory(total: total * Self.gibibyte, available: available * Self.gibibyte)
    }

    /// Returns the files of a cgroup of version 2.
    private func group(
        _ path: String, max: Int? = nil, high: Int? = nil, used: Int = 0, inactive: Int = 0
    ) -> [String: String] {
        func text(_ limit: Int?) -> String { limit.map { "\($0 * Self.gibibyte)\n" } ?? "max\n" }
        return [
            "/sys/fs/cgroup\(path)/memory.max": text(max), "/sys/fs/cgroup\(path)/memory.high": text(high),
            "/sys/fs/cgroup\(path)/memory.current": "\(used * Self.gibibyte)\n",
            "/sys/fs/cgroup\(path)/memory.stat":
                "anon 7\nfile 9\ninactive_file \(inactive * Self.gibibyte)\nactive_file 3\n",
        ]
    }

    private func merged(_ groups: [String: String]...) -> [String: String] {
        groups.reduce(into: [:]) { $0.merge($1) { $1 } }
    }

    @Test func `is what the host can give where no cgroup has a limit`() {
        #expect(memory([:]) == gibibytes(64, 48))
        let files = merged(["/proc/self/cgroup": "0::/user.slice/a\n"], group("/user.slice/a"), group("/user.slice"))
        #expect(memory(files) == gibibytes(64, 48))
    }

    @Test func `is all of it where the system does not tell what is available`() {
        #expect(memory([:], on: [:]) == gibibytes(8, 8))
        #expect(memory([:], on: ["/proc/meminfo": "MemTotal: 4194304 kB\n"]) == gibibytes(4, 4))
        #expect(memory([:], on: ["/proc/meminfo": "MemTotal: -1 kB\nnothing\nMemAvailable: x\n"]) == gibibytes(8, 8))
    }

    @Test func `is what a cgroup has left, in which only files that were not read for long do not count`() {
        let files = merged(
            ["/proc/self/cgroup": "0::/system.slice/braid.service\n"],
            group("/system.slice/braid.service", max: 16, used: 10, inactive: 6))
        #expect(memory(files) == gibibytes(16, 12))
    }

    @Test func `ends at memory.high as at memory.max`() {
        let files = merged(["/proc/self/cgroup": "0::/a\n"], group("/a", max: 16, high: 12, used: 2))
        #expect(memory(files) == gibibytes(12, 10))
    }

    @Test func `is the least of what all cgroups above a process leave`() {
        // The inner cgroup may have 30 GiB, but that around it has 20 GiB, and its other processes use 15 of them.
        let files = merged(
            ["/proc/self/cgroup": "0::/pod/container\n"], group("/pod/container", max: 30, used: 2),
            group("/pod", max: 20, used: 15))
        #expect(memory(files) == gibibytes(20, 5))
        let full = merged(["/proc/self/cgroup": "0::/a/b\n"], group("/a/b"), group("/a", max: 4, used: 5))
        #expect(memory(full) == gibibytes(4, 0))
    }

    @Test func `is found at the root where a container sees only its own cgroup`() {
        for path in ["/", "/docker/0f", "/../../kubepods/pod7"] {
            let files = merged(["/proc/self/cgroup": "0::\(path)\n"], group("", max: 2, used: 1))
            #expect(memory(files) == gibibytes(2, 1), "\(path)")
        }
    }

    @Test func `is also limited by cgroups of version 1`() {
        let folder = "/sys/fs/cgroup/memory/docker/0f"
        var files = [
            "/proc/self/cgroup": "12:cpu,cpuacct:/docker/0f\n4:memory:/docker/0f\n1:name=systemd:/docker/0f\n0::/x:y\n",
            "\(folder)/memory.limit_in_bytes": "\(10 * Self.gibibyte)\n",
            "\(folder)/memory.usage_in_bytes": "\(6 * Self.gibibyte)\n",
            "\(folder)/memory.stat": "inactive_file 1\ntotal_inactive_file \(3 * Self.gibibyte)\n",
            "/sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
        ]
        #expect(memory(files) == gibibytes(10, 7))
        files["\(folder)/memory.limit_in_bytes"] = "9223372036854771712\n"
        #expect(memory(files) == gibibytes(64, 48))
    }

    @Test func `is not limited by lines and files that say nothing`() {
        for list in ["", "\n:\n::\n", "0::\n", "memory\n", "5:memory\n"] {
            #expect(memory(["/proc/self/cgroup": list]) == gibibytes(64, 48), "\(list)")
        }
        let damaged = [
            "/proc/self/cgroup": "0::/a\n", "/sys/fs/cgroup/a/memory.max": "-5\n",
            "/sys/fs/cgroup/memory.max": "99999999999999999999\n", "/sys/fs/cgroup/a/memory.high": "",
        ]
        #expect(memory(damaged) == gibibytes(64, 48))
    }

    @Test func `is divided evenly among the processes of a host`() {
        #expect(gibibytes(64, 48).divided(among: 4) == gibibytes(16, 12))
        #expect(gibibytes(64, 48).divided(among: 0) == gibibytes(64, 48))
    }

    @Test func `is found on this host`() {
        let current = HostMemory.current
        #expect(0 < current.available && current.available <= current.total)
        #expect(current.total <= Int(clamping: ProcessInfo.processInfo.physicalMemory))
    }
}
