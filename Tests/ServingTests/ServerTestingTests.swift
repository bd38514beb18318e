import Hummingbird
import ServerTesting
import Serving
import Synchronization
import TestSupport
import Testing

@Suite(.timeLimit(.minutes(15))) struct `Tests of a server` {
    @Test func `end when a request is not answered, with its name`() async throws {
        let server = ToyServer("x")
        server.engine.isHolding = true
        let client = try await RouteClient(server.application, limit: .milliseconds(200))
        let error = await #expect(throws: ServerTestError.self) {
            try await client.execute(uri: "/generate", method: .post, body: ByteBuffer(string: #"{"text":"a"}"#))
        }
        #expect(error?.description.contains("POST /generate: not within 0.2 seconds") == true)
    }

    @Test func `end when what they wait for does not react to being cancelled`() async throws {
        let (stream, end) = AsyncStream.makeStream(of: Void.self)
        await #expect(throws: ServerTestError.self) {
            try await bounded("nothing", by: .milliseconds(50)) {
                await Task { for await _ in stream {} }.value
            }
        }
        end.finish()
    }

    @Test func `stop the server after an error of their own, which they throw`() async throws {
        struct Problem: Error {}
        let found = Mutex(0)
        await #expect(throws: Problem.self) {
            try await ToyServer("x").application.listening { port in
                found.withLock { $0 = port }
                throw Problem()
            }
        }
        let port = found.withLock { $0 }
        await #expect(throws: (any Error).self) { try await RawConnection.open(port: port) { _ in } }
    }
}
