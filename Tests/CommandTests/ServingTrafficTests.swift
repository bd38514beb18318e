import Testing
import braid

@Suite struct ServingTrafficTests {
    private func traffic(_ change: (inout ServingTraffic) -> Void = { _ in }) -> ServingTraffic {
        var traffic = ServingTraffic()
        traffic.requests = 2000
        traffic.inputLength = 100
        traffic.outputLength = 10
        change(&traffic)
        return traffic
    }

    @Test func `the same seed gives the same traffic and another seed another`() {
        #expect(traffic().arrivals == traffic().arrivals)
        #expect(traffic().arrivals != traffic { $0.seed = 2 }.arrivals)
        let prompt = traffic().prompt(number: 3, tokens: 50, vocabularySize: 1000)
        #expect(prompt == traffic().prompt(number: 3, tokens: 50, vocabularySize: 1000))
        #expect(prompt != traffic().prompt(number: 4, tokens: 50, vocabularySize: 1000))
        #expect(prompt != traffic().prompt(number: -1, tokens: 50, vocabularySize: 1000))
        #expect(prompt.allSatisfy { (0..<1000).contains($0) })
    }

    @Test func `at an infinite rate everything is sent at once`() {
        #expect(traffic().arrivals.allSatisfy { $0.seconds == 0 })
    }

    @Test func `at a finite rate the gaps are those of a Poisson process`() {
        let arrivals = traffic { $0.rate = 50 }.arrivals
        #expect(arrivals[0].seconds == 0)
        let gaps = Measurements(zip(arrivals.dropFirst(), arrivals).map { $0.seconds - $1.seconds })
        #expect(gaps.minimum! >= 0)
        // Mean and deviation of an exponential distribution are equal, and the median is ln 2 of them. The tolerance is
        // five deviations of the estimates: 5 / sqrt(1999).
        #expect(abs(gaps.mean! * 50 - 1) < 0.12)
        #expect(abs(gaps.standardDeviation! * 50 - 1) < 0.2)
        #expect(abs(gaps.median! * 50 - 0.693) < 0.12)
    }

    @Test(arguments: [(0.0, 1), (0.005, 1), (0.5, 50), (1.0, 100)])
    func `lengths fill their range`(ratio: Double, least: Int) {
        let lengths = traffic { $0.rangeRatio = ratio }.arrivals.map(\.inputTokens)
        #expect(lengths.min() == least)
        #expect(lengths.max() == 100)
    }

    @Test func `all problems are reported at once`() {
        let problems = traffic {
            $0.requests = 0
            $0.inputLength = 0
            $0.outputLength = -1
            $0.rangeRatio = 1.5
            $0.rate = .nan
        }.validate()
        for rate: Double in [0, -1, 1e-300, -.infinity] {
            #expect(traffic { $0.rate = rate }.validate().count == 1, "\(rate)")
        }
        let options = [
            "--num-prompts", "--random-input-len", "--random-output-len", "--random-range-ratio", "--request-rate",
        ]
        #expect(problems.map { String($0.prefix { $0 != ":" }) } == options)
        #expect(traffic().validate() == [])
    }
}
