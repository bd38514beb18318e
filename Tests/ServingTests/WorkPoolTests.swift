import Foundation
import HTTPTypes
import JSON
import Serving
import Synchronization
import TestSupport
import Testing

/// A flag that tasks and threads share.
private final class Flag: Sendable {
    private let value = Atomic(false)
    var isSet: Bool { value.load(ordering: .relaxed) }
    func set() { value.store(true, ordering: .relaxed) }
}

@Suite(.timeLimit(.minutes(15))) struct `The work pool` {
    @Test func `lets short work run before long work has ended`() async throws {
        let pool = WorkPool(turns: 1, slice: .milliseconds(1))
        let stop = Flag()
        try await withThrowingTaskGroup(of: Void.self) { group in
            for _ in 0..<3 {
                group.addTask {
                    // If long work did not yield, it would never end and the short work never begin.
                    try await pool.run(bytes: .max) {
                        while !stop.isSet, WorkPool.mayContinue {}
                    }
                }
            }
            let answer = try await pool.run(bytes: .max) { 42 }
            #expect(answer == 42)
            stop.set()
            try await group.waitForAll()
        }
    }

    /// What a job holds: a request's bytes, and its share of the memory budget.
    private final class Held: Sendable {}

    /// The actions that cancel work, as a connection keeps them.
    private final class Actions: Sendable {
        private let actions = Mutex<[@Sendable () -> Void]>([])
        var count: Int { actions.withLock { $0.count } }
        func keep(_ action: @escaping @Sendable () -> Void) { actions.withLock { $0.append(action) } }
    }

    @Test(arguments: [true, false])
    func `lets go of what ended work held`(fails: Bool) async throws {
        let (pool, actions) = (WorkPool(turns: 1), Actions())
        var held: [@Sendable () -> Bool] = []
        for _ in 0..<3 {
            let object = Held()
            held.append { [weak object] in object == nil }
            do {
                try await pool.run(bytes: .max, onStart: actions.keep) {
                    try withExtendedLifetime(object) { if fails { throw CancellationError() } }
                }
                #expect(!fails)
            } catch {
                #expect(fails)
            }
        }
        #expect(actions.count == 3)
        let isGone = held
        #expect(await eventually { isGone.allSatisfy { $0() } })
    }

    @Test func `ends work that is not wanted any more`() async throws {
        let pool = WorkPool(turns: 1, slice: .milliseconds(1))
        let begun = Flag()
        let task = Task {
            try await pool.run(bytes: .max) {
                begun.set()
                while WorkPool.mayContinue {}
            }
        }
        while !begun.isSet { try await Task.sleep(for: .milliseconds(1)) }
        task.cancel()
        await #expect(throws: (any Error).self) { try await task.value }
        let next = try await pool.run(bytes: .max) { 1 }
        #expect(next == 1)
    }

    @Test func `passes errors on and runs small work on the caller's thread`() async throws {
        struct Mine: Error {}
        let pool = WorkPool(turns: 2)
        await #expect(throws: Mine.self) { try await pool.run(bytes: .max) { throw Mine() } }
        await #expect(throws: Mine.self) { try await pool.run(bytes: 1) { throw Mine() } }
        try await withThrowingTaskGroup(of: Int.self) { group in
            for number in 0..<500 { group.addTask { try await pool.run(bytes: .max) { number } } }
            let sum = try await group.reduce(0, +)
            #expect(sum == 500 * 499 / 2)
        }
    }

    @Test func `does not let large requests block others`() async throws {
        let server = ToyServer("x")
        let (begun, stop) = (Flag(), Flag())
        try await withThrowingTaskGroup(of: Void.self) { group in
            for _ in 0..<4 {
                group.addTask {
                    try await WorkPool.shared.run(bytes: .max) {
                        begun.set()
                        while !stop.isSet, WorkPool.mayContinue {}
                    }
                }
            }
            while !begun.isSet { try await Task.sleep(for: .milliseconds(1)) }
            for _ in 0..<20 { #expect(try await server.send(.get, "/health").status == 200) }
            // Large enough for the pool.
            let prompt = String(repeating: "ab ", count: 10_000)
            #expect(try await server.post("/tokenize", #"{"prompt":"\#(prompt)"}"#).status == 200)
            stop.set()
            try await group.waitForAll()
        }
    }

    @Test func `requests that exceed the memory are refused before they run`() async throws {
        var server = ToyServer("x")
        server.configuration.maxBodyValues = 1024
        let many = #"{"prompt":["# + Array(repeating: #""""#, count: 2000).joined(separator: ",") + "]}"
        let reply = try await server.post("/tokenize", many)
        #expect(reply.status == 400 && reply.message.contains("more than 1024 values"))
        let scores = try await server.post(
            "/v1/completions", #"{"model":"toy","prompt":"hi","echo":true,"logprobs":20,"n":8,"max_tokens":1000000}"#)
        #expect(scores.status == 400 || scores.status == 413)
    }
}
