package import Inference

extension GenerationRequest {
    /// Returns requests of different lengths, greedy and sampled, some with prompt scores, of the tokens 0 to 199.
    package static func mixed(count: Int = 12, salt: String? = nil) -> [GenerationRequest] {
        (0..<count).map { index in
            var sampling = SamplingParameters()
            sampling.temperature = index % 2 == 0 ? 0 : 0.8
            sampling.seed = UInt64(index)
            sampling.maxNewTokens = index == 5 ? 0 : 5 + index % 7
            let prompt = (0..<(1 + index * 7 % 60)).map { Int32(($0 * 31 + index * 17) % 200) }
            let logProbs = LogProbOptions(topCount: 3, promptStart: index % 3 == 0 ? 0 : nil)
            return GenerationRequest(prompt: prompt, sampling: sampling, logProbs: logProbs, cacheSalt: salt)
        }
    }
}

extension Engine {
    /// Submits requests together and reads their answers.
    @inline(never)
    package func answers(
        to requests: [GenerationRequest], _ mode: DisaggregationMode = .none
    ) async throws -> [Answer] {
        let generations = try requests.map { request in
            var request = request
            request.mode = mode
            return try submit(request)
        }
        return await TestSupport.answers(generations)
    }
}
