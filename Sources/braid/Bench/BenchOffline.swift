import ArgumentParser
package import Inference
import Modeling
import Models

/// The command measures the requests of `bench serving` on an engine in this process, without a server.
struct BenchOffline: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "offline",
        abstract: "Gives random prompts to an engine in this process and measures throughput and latencies.",
        discussion: """
            The requests are those of `bench serving` with the same options; only HTTP and text are left out. What a \
            server's rate is below this one's is what serving costs. The exit status is 1 when no request succeeded.
            """)

    @OptionGroup var engineOptions: EngineOptions
    @OptionGroup(title: "Requests") var bench: ServingBenchOptions

    func validate() throws {
        if bench.datasetName == .shareGPT {
            throw ValidationError("--dataset-name sharegpt: a server's tokenizer is needed; use bench serving")
        }
    }

    func run() async throws {
        let job = try engineOptions.join()
        try await job.run({ try engineOptions.load().model }, lead: { try await measure(with: job) })
    }

    private func measure(with job: Job) async throws {
        try OutputFile.ofResults(bench.outputFile)?.check()
        let (directory, model, profile) = try engineOptions.load()
        let configuration = try engineOptions.engineConfiguration(for: model, profile, job)
        let endOfText = bench.disableIgnoreEos ? Set(directory.generation.endTokens) : []
        let engine = Engine(model, configuration, processes: job.processes)
        defer { engine.stop() }
        let report = try await bench.measure(
            backend: "engine", model: directory.name, vocabularySize: model.vocabularySize
        ) { prompt, maxTokens in
            var sampling = SamplingParameters()
            sampling.temperature = 0
            sampling.maxNewTokens = maxTokens
            sampling.stopTokens = endOfText
            return await engine.outcome(of: GenerationRequest(prompt: prompt.tokens, sampling: sampling))
        }
        try bench.write(report)
    }
}

extension EngineClient {
    /// Serves a request and records the arrival times of its tokens. It never throws: a failure is an outcome.
    package func outcome(of request: GenerationRequest) async -> ServingOutcome {
        let start = ContinuousClock.now
        var outcome = ServingOutcome(inputTokens: request.prompt.count)
        var tokens = 0
        do {
            for await event in try submit(request).events {
                let seconds = (ContinuousClock.now - start) / .seconds(1)
                switch event {
                case .promptLogProbs: break
                case .token:
                    tokens += 1
                    outcome.receive(total: tokens, at: seconds)
                case .finished: outcome.finish(at: seconds)
                case .failed(let reason): outcome.error = reason
                }
            }
        } catch {
            outcome.error = error.description
        }
        return outcome
    }
}
