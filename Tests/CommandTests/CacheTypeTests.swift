import ArgumentParser
import KVCache
import Modeling
import Models
import Tensors
import Testing
import braid

@Suite struct `A cache type` {
    @Test func `is known by all its names`() {
        func type(_ name: String) -> CacheType.Keys? { CacheChoice(argument: name)?.keys(in: .f32) }
        #expect(["float32", "fp32", "f32"].allSatisfy { type($0) == .float32 })
        #expect(["bfloat16", "bf16"].allSatisfy { type($0) == .bfloat16 })
        #expect(["fp8_e4m3", "fp8"].allSatisfy { type($0) == .fp8 })
        #expect(CacheChoice.allValueStrings.allSatisfy { CacheChoice(argument: $0) != nil })
    }

    /// `Verification` compares caches in BF16 with those in F32 in the profiles that round keys.
    @Test func `is by default the smallest that adds no rounding`() {
        #expect(CacheChoice.auto.keys(in: .f32) == .float32 && CacheChoice.auto.keys(in: .int8F32) == .float32)
        #expect(CacheChoice.auto.keys(in: .bf16) == .bfloat16 && CacheChoice.auto.keys(in: .int8) == .bfloat16)
        for profile in NumericsProfile.allCases {
            #expect(CacheChoice.float32.keys(in: profile) == .float32 && CacheChoice.fp8.keys(in: profile) == .fp8)
        }
    }

    @Test func `may have index keys in FP4, whatever the type of other keys`() throws {
        let choice = try IndexCacheOptions.parse(["--enable-deepseek-v4-fp4-indexer"])
        for keys in CacheType.Keys.allCases {
            let type = choice.type(keys)
            #expect(type == CacheType(keys, hasFP4Index: true) && type.rawValue == keys.rawValue + "+fp4-index")
            #expect(CacheType(rawValue: type.rawValue) == type && CacheType(rawValue: keys.rawValue) == CacheType(keys))
            #expect(try IndexCacheOptions.parse([]).type(keys) == CacheType(keys))
        }
        #expect(["", "fp4-index", "+fp4-index", "fp8+fp4-index"].allSatisfy { CacheType(rawValue: $0) == nil })
    }

    @Test(arguments: ReleasedModel.allCases)
    func `with index keys in FP4 is only for DeepSeek-V4`(released: ReleasedModel) throws {
        let description = try released.configuration().description
        let choice = try IndexCacheOptions.parse(["--enable-deepseek-v4-fp4-indexer"])
        try IndexCacheOptions.parse([]).check(description)
        if description.modelType == "deepseek_v4" {
            try choice.check(description)
            #expect(description.cacheTypes == CacheType.plain + CacheType.withFP4Index)
        } else {
            let error = #expect(throws: (any Error).self) { try choice.check(description) }
            #expect(
                "\(error!)"
                    == "--enable-deepseek-v4-fp4-indexer: only models of type deepseek_v4 were made for index keys in "
                    + "FP4, and this one is of type \(description.modelType); leave it out")
            #expect(description.cacheTypes == CacheType.plain)
        }
    }

    @Test(arguments: ["", "fp8_e5m2", "FP8", "float16", "int8"])
    func `is refused by any other name`(name: String) {
        #expect(CacheChoice(argument: name) == nil)
    }
}
