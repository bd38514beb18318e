import Disaggregation
import Foundation
import KVTransport
import NIOCore
import TestSupport
import Testing

@Suite(
    .serialized, .timeLimit(.minutes(10)),
    .enabled(
        if: UCXLibrary.problem() == nil,
        "frames over UCX are NOT TESTED: this machine has no UCX; make setup installs it"))
struct `Frames over UCX` {
    private static let ways: [Way] = [.ucxOverTCP, .ucxOverSharedMemory]

    /// The number of threads of this process that call UCX.
    private static var threads: Int {
        let folder = "/proc/self/task"
        let tasks = (try? FileManager.default.contentsOfDirectory(atPath: folder)) ?? []
        return tasks.count {
            (try? String(contentsOfFile: "\(folder)/\($0)/comm", encoding: .utf8)) == "braid ucx\n"
        }
    }

    @Test(arguments: ways)
    func `leave no thread behind, though many wait to be sent and to be read`(_ way: Way) async throws {
        #expect(await eventually { Self.threads == 0 })
        let ends = try TwoEnds(way)
        let dialer = ends.dialer()
        for index in 0..<3 {
            let (prefill, decode) = (Inbox(), Inbox())
            let links = try await ends.open(index, prefill: prefill.take, decode: decode.take)
            #expect(await eventually { Self.threads == 2 })
            links.decode.setReadsFrames(index == 0)
            let frames = (0..<20).map { [UInt8](repeating: UInt8($0), count: 300_000) }
            for frame in frames { links.prefill.send(frame: frame) }
            // A frame that is not announced comes behind those that are.
            links.prefill.send(frame: [1, 2, 3])
            if index == 0 {
                #expect(await eventually { decode.frames == frames + [[1, 2, 3]] })
            }
            if index == 2 { dialer.stop() } else { (index == 0 ? links.prefill : links.decode).close("enough") }
            #expect(await eventually { prefill.ends.count == 1 && decode.ends.count == 1 })
            #expect(index == 0 || decode.frames.isEmpty)
        }
        #expect(await eventually { Self.threads == 0 })
    }

    @Test func `that are longer than any are refused before they take memory`() async throws {
        let ends = try TwoEnds(.ucxOverTCP)
        let dialer = ends.dialer()
        defer { dialer.stop() }
        let (prefill, decode) = (Inbox(), Inbox())
        let links = try await ends.open(prefill: prefill.take, decode: decode.take)
        let bytes = KVFrame.headerBytes + KVFrame.maxPayload + 1
        links.prefill.send(frame: [UInt8](repeating: 0, count: bytes))
        #expect(await eventually { decode.ends == ["it announces a frame of \(bytes) bytes"] }, "\(decode.ends)")
        #expect(await eventually { prefill.ends.count == 1 } && decode.frames.isEmpty)
    }

    @Test func `are not mixed with those of a server that sends them over TCP`() async throws {
        let ends = try TwoEnds(.ucxOverTCP)
        let dialer = ends.dialer(card: Cards.decode)
        defer { dialer.stop() }
        let said = "--disaggregation-transfer-backend: ucx at the prefill server, tcp at the decode server"
        #expect(await eventually { dialer.problem?.contains(said) ?? false }, "\(dialer.problem ?? "")")
        #expect(await eventually { ends.lines.contains { $0.contains(said) } }, "\(ends.lines)")
        #expect(ends.listening.isEmpty && ends.dialing.isEmpty)
    }

    @Test func `are given up with a reason at both servers if UCX finds no way`() async throws {
        let ends = try TwoEnds(.ucxOverTCP)
        let dialer = ends.dialer(ucx: UCXSettings(transports: "posix,self"))
        defer { dialer.stop() }
        #expect(
            await eventually { ends.lines.contains { $0.contains("gave up a session") && $0.contains("UCX_TLS") } },
            "\(ends.lines)")
        #expect(
            await eventually { dialer.problem?.contains("the other server says: UCX: ") ?? false },
            "\(dialer.problem ?? "")")
        #expect(ends.listening.isEmpty && ends.dialing.isEmpty)
        #expect(await eventually { ends.listener.failures > 1 && dialer.failures > 1 })
    }

    @Test func `are given up if a server that knows the secret sends no address, or nothing`() async throws {
        var limits = TwoEnds.patient
        limits.secondConnection = .milliseconds(500)
        let ends = try TwoEnds(.ucxOverTCP, limits)
        let long = RawClient.length(UInt32.max)
        let attempts = [
            long, RawClient.length(1) + [9], RawClient.length(1) + [0], RawClient.length(3) + [1, 65, 66], [],
        ]
        for (index, bytes) in attempts.enumerated() {
            let messages = try await RawClient(port: ends.port)
            var first = TransferHandshake(dialing: Way.ucxOverTCP.decode, .messages, TwoEnds.secret)
            try await messages.shake(&first)
            let frames = try await RawClient(port: ends.port)
            var second = TransferHandshake(
                dialing: Way.ucxOverTCP.decode, .frames(first.session), first.sessionSecret)
            try await frames.shake(&second)
            #expect(first.isDone && second.isDone)
            await frames.send(bytes)
            #expect(await eventually { frames.isClosed && messages.isClosed }, "attempt \(index)")
        }
        #expect(ends.lines.contains { $0.contains("the other server says: AB") }, "\(ends.lines)")
        #expect(ends.lines.contains { $0.contains("did not reach each other over UCX within 500 ms") }, "\(ends.lines)")
        #expect(ends.listening.isEmpty)
        #expect(await eventually { Self.threads == 0 })
        let dialer = ends.dialer()
        defer { dialer.stop() }
        #expect(await eventually { ends.listening.count == 1 })
    }
}
