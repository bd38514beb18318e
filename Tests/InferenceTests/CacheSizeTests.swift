import Inference
import KVCache
import Modeling
import Models
import Parallelism
import TestSupport
import Testing

@Suite struct `The size of the cache` {
    private let model: any Model

    init() throws { model = try Golden("v32").directory.load() }

    /// The bytes of a page in a process that keeps all keys.
    private var pageBytes: Int {
        let configuration = EngineConfiguration()
        return model.cacheFormat(configuration.cacheType, pageSize: configuration.pageSize).bytesPerPage
    }

    /// Returns a configuration on a host with memory for so many pages.
    private func configuration(total: Int, available: Int, processes: Int = 1) -> EngineConfiguration {
        var configuration = EngineConfiguration()
        configuration.parallel = ParallelConfiguration(context: processes)
        configuration.hostMemory = HostMemory(total: total * pageBytes, available: available * pageBytes)
        (configuration.processes, configuration.processesOnHost) = (processes, processes)
        return configuration
    }

    private func pages(_ configuration: EngineConfiguration) -> Int {
        configuration.scheduler(for: model).totalPages
    }

    @Test func `is half of what is available, not of what the host has`() {
        #expect(pages(configuration(total: 1000, available: 24)) == 12)
    }

    @Test(arguments: [1, 2, 4]) func `is an even part for each process of the host`(processes: Int) {
        #expect(pages(configuration(total: 1000, available: 24, processes: processes)) == 12 / processes)
    }

    @Test func `does not depend on processes of other hosts`() {
        var configuration = configuration(total: 1000, available: 24, processes: 4)
        configuration.processesOnHost = 1
        #expect(pages(configuration) == 12)
    }

    @Test func `is no more than eight requests of full context need, however much memory there is`() {
        let configuration = configuration(total: 1 << 30, available: 1 << 30)
        #expect(pages(configuration) == 8 * model.contextLength / configuration.pageSize)
    }

    @Test func `may be chosen larger than what is available, but not than what a process could ever use`() {
        var configuration = configuration(total: 40, available: 4, processes: 4)
        configuration.maxTotalTokens = 10 * configuration.pageSize
        #expect(configuration.validate(for: model) == [])
        #expect(pages(configuration) == 10)
        configuration.maxTotalTokens = 11 * configuration.pageSize
        let problem = configuration.validate(for: model).first ?? ""
        #expect(problem.contains("the \(10 * pageBytes) bytes of each of 4 processes on this host"), "\(problem)")
        #expect(problem.hasSuffix("the nearest legal value is \(10 * configuration.pageSize)"), "\(problem)")
    }

    @Test func `in bytes of each rank ends at the memory of its process, too`() {
        var configuration = configuration(total: 40, available: 40, processes: 4)
        configuration.cacheBytesPerRank = 10 * pageBytes
        #expect(configuration.validate(for: model) == [])
        configuration.cacheBytesPerRank = 10 * pageBytes + 1
        let problem = configuration.validate(for: model).first ?? ""
        #expect(problem.hasPrefix("--kv-cache-memory-bytes") && problem.hasSuffix(" \(10 * pageBytes)"), "\(problem)")
    }
}
