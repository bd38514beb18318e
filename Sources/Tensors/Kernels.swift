import CKernels

/// The table of operations of one instruction-set level.
@safe package struct Kernels: @unchecked Sendable {
    package enum Level: String, Sendable, CaseIterable, Comparable {
        case reference, neon, avx2, avx512

        var kernelValue: braid_level {
            switch self {
            case .reference: BRAID_REFERENCE
            case .neon: BRAID_NEON
            case .avx2: BRAID_AVX2
            case .avx512: BRAID_AVX512
            }
        }

        package static func < (a: Level, b: Level) -> Bool { a.kernelValue.rawValue < b.kernelValue.rawValue }
    }

    package let level: Level
    let table: braid_kernels
    /// Who shares the larger operations; `nil` where one thread does everything.
    package private(set) var team: Team?
    /// Sizes of blocks.
    package private(set) var tuning = Tuning()
    /// Counts what is called, where somebody wants to know.
    private var counter: KernelCounter?

    /// The kernels of a level, or `nil` where this processor or build does not have it.
    package init?(_ level: Level) {
        guard let table = unsafe braid_kernels_at(level.kernelValue) else { return nil }
        self.level = level
        unsafe self.table = unsafe table.pointee
    }

    /// The same kernels, whose larger operations the team shares. The bits are the same. To be used by the team's leader.
    package func shared(by team: Team) -> Kernels {
        var kernels = self
        kernels.team = team
        return kernels
    }

    /// The same kernels with other sizes of blocks. The bits are the same.
    package func tuned(_ tuning: Tuning) -> Kernels {
        var kernels = self
        kernels.tuning = tuning
        return kernels
    }

    /// The same kernels, whose calls are counted. To be used by one thread.
    package func counted(by counter: KernelCounter) -> Kernels {
        var kernels = self
        kernels.counter = counter
        return kernels
    }

    /// Runs one operation of the table.
    @inline(__always) func run(_ operation: () -> Void) {
        counter?.calls += 1
        operation()
    }

    /// Counts an operation that the team has done.
    func countShared() { counter?.calls += 1 }

    /// The widest latent, rotary and index keys the attention and indexer kernels have room for.
    package static let maximumLatentWidth = Int(BRAID_MAX_LATENT)
    package static let maximumRopeWidth = Int(BRAID_MAX_ROPE)
    package static let maximumIndexWidth = Int(BRAID_MAX_INDEX_WIDTH)

    /// The best this processor has.
    package static let best = available.last!

    /// Every level this processor has, worst first.
    package static let available = Level.allCases.compactMap { Kernels($0) }

    /// Tells the processor that this thread only waits for another one's write.
    package static func pause() { braid_pause() }
}

/// Counts the operations that one rank's thread has asked for; one that a team shares counts once.
package final class KernelCounter {
    package fileprivate(set) var calls = 0
    package init() {}
}
