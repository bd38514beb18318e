import Foundation
import Inference
import Parallelism
import Synchronization
import Testing

@Suite struct `Cores of ranks` {
    #if os(Linux)
        @Test func `are kept by a rank's thread, and by no other`() throws {
            let before = CorePolicy.allowedProcessors
            let one = try #require(before.last)
            let seen = Mutex<[Int]>([])
            let done = DispatchSemaphore(value: 0)
            let thread = Thread {
                CoreShares.bound([.init(nodes: [0], processors: [one])]).bindThread(of: 0)
                seen.withLock { $0 = CorePolicy.allowedProcessors }
                done.signal()
            }
            thread.start()
            try #require(done.wait(timeout: .now() + 60) == .success)
            #expect(seen.withLock { $0 } == [one])
            #expect(CorePolicy.allowedProcessors == before)
        }
    #endif

    @Test func `are chosen by the system with --numa off`() {
        #expect(CorePolicy.off.shares(ranks: 2, threads: 1) == .free(.off))
    }

    @Test func `are those of the process's place on its host, as Open MPI tells`() {
        func place(_ rank: String?, _ size: String?) -> [Int] {
            var environment: [String: String] = [:]
            environment["OMPI_COMM_WORLD_LOCAL_RANK"] = rank
            environment["OMPI_COMM_WORLD_LOCAL_SIZE"] = size
            let (place, places) = CorePolicy.placeOnHost(environment)
            return [place, places]
        }
        #expect(place("1", "4") == [1, 4])
        #expect(place(nil, "4") == [0, 1])
        #expect(place("4", "4") == [0, 1])
        #expect(place("-1", "x") == [0, 1])
    }
}
