import ArgumentParser
import KVCache
import Testing
import braid

@Suite struct `A cache type` {
    @Test func `is known by all its names, and auto adds no rounding`() {
        #expect(["auto", "float32", "fp32", "f32"].allSatisfy { CacheType(argument: $0) == .float32 })
        #expect(["bfloat16", "bf16"].allSatisfy { CacheType(argument: $0) == .bfloat16 })
        #expect(["fp8_e4m3", "fp8"].allSatisfy { CacheType(argument: $0) == .fp8 })
        #expect(CacheType.allValueStrings.allSatisfy { CacheType(argument: $0) != nil })
    }

    @Test(arguments: ["", "fp8_e5m2", "FP8", "float16", "int8"])
    func `is refused by any other name`(name: String) {
        #expect(CacheType(argument: name) == nil)
    }
}
