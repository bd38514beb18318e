/// Asks a server again and again whether it is there, as what watches over it does, and notes how long that takes.
struct HealthProbe: Sendable {
    private let client: HTTPClient

    init(_ client: HTTPClient) { self.client = client }

    /// Asks until the task is cancelled.
    ///
    /// - Returns: seconds from connecting to the end of each answer.
    /// - Throws: when an answer is not there or says something else than that all is well.
    func run() async throws -> Measurements {
        let clock = ContinuousClock()
        var seconds: [Double] = []
        while !Task.isCancelled {
            let start = clock.now
            do {
                let answer = try await client.get("/health")
                guard answer.status == 200 else {
                    throw CommandError("\(client.address)/health: status \(answer.status): \(answer.message)")
                }
            } catch  where Task.isCancelled {
                break
            }
            seconds.append((clock.now - start) / .seconds(1))
            try? await clock.sleep(until: start + .milliseconds(50))
        }
        return Measurements(seconds)
    }
}
