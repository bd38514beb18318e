import CKernels

/// Offers the operations of one instruction-set level.
@safe package struct Kernels: @unchecked Sendable {
    package enum Level: String, Sendable, CaseIterable, Comparable {
        case reference, neon, avx2, avx512, amx

        var kernelValue: braid_level {
            switch self {
            case .reference: BRAID_REFERENCE
            case .neon: BRAID_NEON
            case .avx2: BRAID_AVX2
            case .avx512: BRAID_AVX512
            case .amx: BRAID_AMX
            }
        }

        package static func < (a: Level, b: Level) -> Bool { a.kernelValue.rawValue < b.kernelValue.rawValue }
    }

    package let level: Level
    let table: braid_kernels
    /// The team that shares the larger operations; `nil` if one thread does everything.
    package private(set) var team: Team?
    /// The profile of products, index scores and attention.
    package private(set) var profile = NumericsProfile.f32
    /// The block sizes in use.
    package private(set) var tuning = Tuning()
    /// A counter of the operations, if they are counted.
    private var counter: KernelCounter?

    /// Creates the kernels of a level; `nil` if this processor or build lacks it.
    package init?(_ level: Level) {
        guard let table = unsafe braid_kernels_at(level.kernelValue) else { return nil }
        self.level = level
        unsafe self.table = unsafe table.pointee
    }

    /// Returns the same kernels with a team that shares the larger operations; results are bitwise equal. Only the
    /// team's leader may use them.
    package func shared(by team: Team) -> Kernels {
        var kernels = self
        kernels.team = team
        return kernels
    }

    /// Returns the same kernels with another numerics profile.
    package func computing(in profile: NumericsProfile) -> Kernels {
        var kernels = self
        kernels.profile = profile
        return kernels
    }

    /// The same kernels in the profile `f32`, for the few products whose small errors have large effects: of a router,
    /// of index head weights, of the vocabulary.
    package var inF32: Kernels { computing(in: .f32) }

    /// Returns the same kernels with other block sizes; results are bitwise equal.
    package func tuned(_ tuning: Tuning) -> Kernels {
        var kernels = self
        kernels.tuning = tuning
        return kernels
    }

    /// Returns the same kernels with a counter of calls. Only one thread may use them.
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

    /// Counts an operation that the team has computed.
    func countShared() { counter?.calls += 1 }

    /// The attention and indexer kernels have scratch for latent, rotary and index keys of at most these widths.
    package static let maximumLatentWidth = Int(BRAID_MAX_LATENT)
    package static let maximumRopeWidth = Int(BRAID_MAX_ROPE)
    package static let maximumIndexWidth = Int(BRAID_MAX_INDEX_WIDTH)

    /// The best level of this processor.
    package static let best = available.last!

    /// Every level that this processor has, worst first.
    package static let available = Level.allCases.compactMap { Kernels($0) }

    /// Hints to the processor that this thread is waiting for another thread's write.
    package static func pause() { braid_pause() }
}

/// Counts the operations that one rank's thread has called; one that a team shares counts once.
package final class KernelCounter {
    package fileprivate(set) var calls = 0
    package init() {}
}
