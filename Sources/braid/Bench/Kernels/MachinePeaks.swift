import Foundation
import Synchronization
import Tensors

/// Machine peaks are this processor's measured limits per second, for `threads` threads together.
struct MachinePeaks {
    let threads: Int
    /// The rate of multiply-adds in F32, in floating-point operations per second.
    let multiplyAdds: Double
    /// The rate of dot products of bytes, of which products of the profile `int8` are made; `nil` where the processor has
    /// none.
    let int8Dots: Double?
    /// The rate of dot products of BF16 pairs, which the kernels use where it is higher than that of multiply-adds; `nil` where
    /// the processor has none.
    let bf16Dots: Double?
    /// The rate of products of BF16 tiles; `nil` without the level `amx`.
    let tileDots: Double?
    /// The rate of reading main memory, in bytes per second.
    let memory: Double

    /// Measures each limit on `threads` threads at once. A thread's rate is its work divided by its processor time, so
    /// that other programs matter little.
    ///
    /// - Parameter memoryBytes: what each thread reads of main memory in turn.
    init(_ kernels: Kernels, threads: Int, repetitions: Int, memoryBytes: Int = PeakMeter.memoryBytes) {
        let rates = Self.onThreads(threads) {
            let meter = PeakMeter(kernels, memory: ColdMemory(bytes: memoryBytes))
            func median(_ rate: () -> Double) -> Double {
                Measurements((0..<repetitions).map { _ in rate() }).median!
            }
            return [
                median(meter.multiplyAdds), median(meter.int8Dots), median(meter.bf16Dots), median(meter.memoryRead),
                median(meter.tileDots),
            ]
        }
        let sums = (0..<5).map { kind in rates.reduce(0) { $0 + $1[kind] } }
        self.threads = threads
        multiplyAdds = sums[0]
        int8Dots = sums[1] > 0 ? sums[1] : nil
        bf16Dots = sums[2] > 0 ? sums[2] : nil
        memory = sums[3]
        tileDots = sums[4] > 0 ? sums[4] : nil
    }

    /// Returns the rate of an instruction that this processor has, in operations per second.
    func rate(of instruction: ProductInstruction) -> Double {
        switch instruction {
        case .multiplyAdds: multiplyAdds
        case .tiles: tileDots ?? multiplyAdds
        case .bytes: int8Dots ?? multiplyAdds
        case .pairs: bf16Dots ?? multiplyAdds
        }
    }

    private static func onThreads(_ count: Int, _ body: @escaping @Sendable () -> [Double]) -> [[Double]] {
        let results = Mutex<[[Double]]>([])
        let done = DispatchSemaphore(value: 0)
        for _ in 0..<count {
            Thread.detachNewThread {
                let result = body()
                results.withLock { $0.append(result) }
                done.signal()
            }
        }
        for _ in 0..<count { done.wait() }
        return results.withLock { $0 }
    }
}

/// The instructions that products are made of.
enum ProductInstruction: String {
    case multiplyAdds = "FMA"
    case tiles
    case bytes = "int8 dot"
    case pairs = "bf16 dot"
}

extension Kernels {
    /// Returns the instruction that an operation on elements of a type is made of.
    func instruction(of type: DType) -> ProductInstruction {
        if profile.isForIntegers, type == .int8, level >= .avx512, Self.int8Dots(turns: 1) > 0 { return .bytes }
        guard profile.roundsToBF16 else { return .multiplyAdds }
        return level == .amx ? .tiles : addsPairs ? .pairs : .multiplyAdds
    }
}

/// A peak meter measures a processor's limits briefly, beside every measurement of a kernel: clock rates change, so a
/// fraction of a limit measured earlier would mean nothing.
struct PeakMeter {
    static let memoryBytes = 256 << 20

    let kernels: Kernels
    private let memory: ColdMemory

    init(_ kernels: Kernels, memory: ColdMemory) {
        self.kernels = kernels
        self.memory = memory
    }

    func multiplyAdds() -> Double { rate { Double(kernels.multiplyAdds(turns: $0)) } }
    func int8Dots() -> Double { rate { Double(Kernels.int8Dots(turns: $0)) } }
    func bf16Dots() -> Double { rate { Double(Kernels.bf16Dots(turns: $0)) } }
    func tileDots() -> Double { rate { Double(Kernels.tileDots(turns: $0)) } }

    func rate(of instruction: ProductInstruction) -> Double {
        switch instruction {
        case .multiplyAdds: multiplyAdds()
        case .tiles: tileDots()
        case .bytes: int8Dots()
        case .pairs: bf16Dots()
        }
    }

    func memoryRead() -> Double {
        let bytes = 16 << 20
        return Double(bytes) / processorSeconds { memory.read(bytes, kernels) }
    }

    private func rate(_ work: (_ turns: Int) -> Double) -> Double {
        var operations = 0.0
        let seconds = processorSeconds { operations = work(50_000) }
        return operations / seconds
    }
}

/// Returns the seconds of processor time that this thread spent in `work`, which must not wait for other threads.
func processorSeconds(_ work: () -> Void) -> Double {
    func now() -> Double {
        var time = timespec()
        unsafe clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time)
        return Double(time.tv_sec) + Double(time.tv_nsec) / 1e9
    }
    let start = now()
    work()
    return now() - start
}
