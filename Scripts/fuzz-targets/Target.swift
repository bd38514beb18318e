import Foundation

/// What is fuzzed: a function of bytes that traps if something is wrong with how they are read.
struct Target {
    let name: String
    let test: ([UInt8]) -> CInt

    nonisolated(unsafe) static let all = [
        Target(name: "json", test: json), Target(name: "safetensors", test: safeTensors),
        Target(name: "tokenizer", test: tokenizer), Target(name: "grammar", test: grammar),
        Target(name: "wire", test: wire), Target(name: "transfer", test: transfer),
    ]

    /// The target that the environment names. libFuzzer has the arguments for itself.
    nonisolated(unsafe) static let chosen: Target = {
        let name = ProcessInfo.processInfo.environment["FUZZ_TARGET"] ?? ""
        guard let target = all.first(where: { $0.name == name }) else {
            fatalError("FUZZ_TARGET is none of \(all.map(\.name).joined(separator: ", "))")
        }
        return target
    }()
}

@_cdecl("LLVMFuzzerTestOneInput")
public func test(_ start: UnsafePointer<UInt8>?, _ count: Int) -> CInt {
    Target.chosen.test(Array(UnsafeBufferPointer(start: start, count: count)))
}
