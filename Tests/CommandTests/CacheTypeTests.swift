import ArgumentParser
import KVCache
import Tensors
import Testing
import braid

@Suite struct `A cache type` {
    @Test func `is known by all its names`() {
        func type(_ name: String) -> CacheType? { CacheChoice(argument: name)?.type(in: .f32) }
        #expect(["float32", "fp32", "f32"].allSatisfy { type($0) == .float32 })
        #expect(["bfloat16", "bf16"].allSatisfy { type($0) == .bfloat16 })
        #expect(["fp8_e4m3", "fp8"].allSatisfy { type($0) == .fp8 })
        #expect(CacheChoice.allValueStrings.allSatisfy { CacheChoice(argument: $0) != nil })
    }

    /// `Verification` compares caches in BF16 with those in F32 in the profiles that round keys.
    @Test func `is by default the smallest that adds no rounding`() {
        #expect(CacheChoice.auto.type(in: .f32) == .float32 && CacheChoice.auto.type(in: .int8F32) == .float32)
        #expect(CacheChoice.auto.type(in: .bf16) == .bfloat16 && CacheChoice.auto.type(in: .int8) == .bfloat16)
        for profile in NumericsProfile.allCases {
            #expect(CacheChoice.float32.type(in: profile) == .float32 && CacheChoice.fp8.type(in: profile) == .fp8)
        }
    }

    @Test(arguments: ["", "fp8_e5m2", "FP8", "float16", "int8"])
    func `is refused by any other name`(name: String) {
        #expect(CacheChoice(argument: name) == nil)
    }
}
