import Foundation
import Parallelism
import Testing

/// Writes files like those in which Linux shows a topology, to a folder of their own.
private func tree(_ files: [String: String]) throws -> String {
    let root = FileManager.default.temporaryDirectory.appendingPathComponent("cores-\(UUID().uuidString)")
    for (path, text) in files {
        let file = root.appendingPathComponent(path)
        try FileManager.default.createDirectory(
            at: file.deletingLastPathComponent(), withIntermediateDirectories: true)
        try Data((text + "\n").utf8).write(to: file)
    }
    return root.path
}

/// Two sockets of four cores with two threads each: the second threads have the numbers from 8 on.
private let twoSockets: [String: String] = {
    var files = [
        "node/online": "0-1", "cpu/online": "0-15", "node/node0/cpulist": "0-3,8-11", "node/node1/cpulist": "4-7,12-15",
    ]
    for core in 0..<8 {
        for processor in [core, core + 8] {
            files["cpu/cpu\(processor)/topology/thread_siblings_list"] = "\(core),\(core + 8)"
        }
    }
    return files
}()

@Suite struct `The topology of cores` {
    private func topology(_ files: [String: String], allowed: [Int]) throws -> CoreTopology? {
        let root = try tree(files)
        defer { try? FileManager.default.removeItem(atPath: root) }
        return CoreTopology(at: root, allowed: allowed)
    }

    @Test func `has the cores of each memory node with their logical processors`() throws {
        let read = try #require(try topology(twoSockets, allowed: Array(0..<16)))
        #expect(read.nodes.map(\.number) == [0, 1])
        #expect(read.nodes[0].cores == [[0, 8], [1, 9], [2, 10], [3, 11]])
        #expect(read.nodes[1].cores == [[4, 12], [5, 13], [6, 14], [7, 15]])
        #expect(read.isWhole)
    }

    @Test func `has only what the process may use`() throws {
        let read = try #require(try topology(twoSockets, allowed: [5, 6, 14]))
        #expect(read.nodes == [.init(number: 1, cores: [[5], [6, 14]])])
        #expect(!read.isWhole)
    }

    @Test func `leaves out a node without processors`() throws {
        var files = twoSockets
        files["node/online"] = "0-2"
        files["node/node2/cpulist"] = ""
        #expect(try topology(files, allowed: Array(0..<16))?.nodes.count == 2)
    }

    @Test(arguments: ["", "x", "3-1", "0-", "-1", "0-99999999", "1-2-3"])
    func `is unknown where a file says something else`(text: String) throws {
        var files = twoSockets
        files["node/online"] = text
        #expect(try topology(files, allowed: Array(0..<16)) == nil)
    }

    @Test func `is unknown without files`() throws { #expect(try topology([:], allowed: [0, 1]) == nil) }
}

@Suite struct `The cores of ranks` {
    private let host = CoreTopology(nodes: [
        .init(number: 0, cores: [[0, 8], [1, 9], [2, 10], [3, 11]]),
        .init(number: 2, cores: [[4, 12], [5, 13], [6, 14], [7, 15]]),
    ])

    private func bound(_ shares: CoreShares) throws -> [CoreShares.Share] {
        guard case .bound(let ranks) = shares else {
            Issue.record("\(shares.text)")
            return []
        }
        return ranks
    }

    @Test func `are those of one memory node, without second threads of a core`() throws {
        let shares = CoreShares(ranks: 4, threads: 2, on: host)
        #expect(
            try bound(shares) == [
                .init(nodes: [0], processors: [0, 1]), .init(nodes: [0], processors: [2, 3]),
                .init(nodes: [2], processors: [4, 5]), .init(nodes: [2], processors: [6, 7]),
            ])
        #expect(
            shares.text == "ranks 0 to 1 on memory node 0, ranks 2 to 3 on memory node 2, a core for each thread")
        #expect(shares.nodes == [0, 2])
    }

    @Test func `of one rank are all cores`() throws {
        #expect(
            try bound(CoreShares(ranks: 1, threads: 8, on: host))
                == [.init(nodes: [0, 2], processors: Array(0..<8))])
    }

    @Test func `are divided between the processes of a host`() throws {
        for place in 0..<2 {
            let shares = try bound(CoreShares(ranks: 2, threads: 2, place: place, of: 2, on: host))
            #expect(shares.map(\.processors) == (place == 0 ? [[0, 1], [2, 3]] : [[4, 5], [6, 7]]))
        }
    }

    @Test func `are chosen by the system where several processes may use the same part of the host`() throws {
        let half = CoreTopology(
            nodes: [.init(number: 0, cores: [[0], [1]]), .init(number: 2, cores: [[4], [5]])], isWhole: false)
        #expect(CoreShares(ranks: 2, threads: 2, place: 1, of: 2, on: half) == .free(.divided(processes: 2)))
        #expect(try bound(CoreShares(ranks: 2, threads: 2, on: half)).map(\.processors) == [[0, 1], [4, 5]])
    }

    @Test func `overlap nowhere and are never too few`() throws {
        for nodes in 2...5 {
            for cores in 1...9 {
                let host = CoreTopology(
                    nodes: (0..<nodes).map { node in
                        .init(number: node, cores: (0..<cores).map { [node * cores + $0] })
                    })
                for ranks in 1...12 {
                    for threads in 1...4 {
                        guard case .bound(let shares) = CoreShares(ranks: ranks, threads: threads, on: host) else {
                            continue
                        }
                        let all = shares.flatMap(\.processors)
                        #expect(shares.count == ranks && Set(all).count == all.count)
                        #expect(shares.allSatisfy { $0.processors.count >= threads })
                        #expect(ranks < nodes || shares.allSatisfy { $0.nodes.count == 1 })
                    }
                }
            }
        }
    }

    @Test func `are chosen by the system where there is nothing to gain, or not enough`() {
        let single = CoreTopology(nodes: [.init(number: 0, cores: [[0], [1]])])
        #expect(CoreShares(ranks: 2, threads: 1, on: single) == .free(.oneNode))
        #expect(CoreShares(ranks: 2, threads: 1, on: nil) == .free(.unknownNodes))
        #expect(
            CoreShares(ranks: 8, threads: 2, on: host)
                == .free(.fewCores(ranks: 8, threads: 2, cores: 8, nodes: 2)))
    }
}
