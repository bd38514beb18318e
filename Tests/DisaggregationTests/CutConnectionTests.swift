import Disaggregation
import Foundation
import Inference
import Parallelism
import TestSupport
import Testing

/// Two engines whose connection is cut again and again.
@Suite(.serialized, .timeLimit(.minutes(10))) struct `A thousand cut connections` {
    private static let cycles = 1000
    /// After so many both caches have used all of their pages.
    private static let warmUp = 300

    /// The bytes of memory that this process has; `nil` where the system does not tell them this way.
    private static var residentBytes: Int? {
        guard let text = try? String(contentsOfFile: "/proc/self/statm", encoding: .utf8) else { return nil }
        return text.split(separator: " ").dropFirst().first.flatMap { Int($0) }.map { $0 * Int(getpagesize()) }
    }

    private static func requests(_ cycle: Int) -> [GenerationRequest] {
        [41, 9, 70].enumerated().map { index, count in
            var sampling = SamplingParameters()
            sampling.maxNewTokens = 2
            let prompt = (0..<count).map { Int32(($0 * 31 + index * 17) % 200) }
            // With a salt of its own no prompt is found in either prefix cache.
            return GenerationRequest(prompt: prompt, sampling: sampling, cacheSalt: "\(cycle)")
        }
    }

    @Test func `leave the page accounting of both sides whole, and give the expected answers in flat memory`()
        async throws
    {
        var policy = PrefillPolicy()
        policy.localPrefillTokens = 0
        let pair = try EnginePair(
            "v32", policy,
            prefill: {
                $0.chunkedPrefillSize = 24
                $0.maxTotalTokens = 1024
                $0.pageSize = 32
            },
            decode: {
                $0.maxTotalTokens = 1024
                $0.pageSize = 16
            })
        defer { pair.stop() }
        let expected = try await pair.prefill.answers(to: Self.requests(-1))
        var warm: Int?
        var lost = 0
        for cycle in 0..<Self.cycles {
            // The link ends after some frames, or at once, or while a client leaves, or because a new session begins.
            let link = try pair.connect(lastFrame: cycle % 4 == 0 ? 1 + cycle / 4 % 12 : nil)
            let generations = try Self.requests(cycle).map { request in
                var request = request
                request.mode = .decode
                return try pair.decode.submit(request)
            }
            switch cycle % 4 {
            case 1: link.close("cut in cycle \(cycle)")
            case 2:
                pair.decode.abort(generations[0].id)
                link.close("cut in cycle \(cycle)")
            case 3: try pair.connect()
            default: break
            }
            let found = await answers(generations)
            for index in found.indices where cycle % 4 != 2 || index > 0 {
                #expect(found[index] == expected[index], "cycle \(cycle)")
            }
            if pair.receiving.failure != nil { lost += 1 }
            try await pair.settle()
            if cycle == Self.warmUp { warm = Self.residentBytes }
        }
        // Half of them are cut on purpose, and others by the number of frames.
        #expect(lost >= Self.cycles / 2)
        #expect(pair.prefill.status().promptTokens > 0)
        if let warm, let now = Self.residentBytes {
            // 93 KiB for each cycle: the allocator's own pages differ from machine to machine.
            #expect(now - warm < 64 << 20, "\((now - warm) >> 10) KiB more after \(Self.cycles - Self.warmUp) cycles")
        }
    }
}
