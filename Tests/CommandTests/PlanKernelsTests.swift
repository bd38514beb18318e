import Foundation
import JSON
import KVCache
import Models
import Parallelism
import Planning
import TestSupport
import Testing
import braid

/// What the kernels of an engine make of a device.
@Suite struct `Kernels in predictions` {
    private let one = ParallelConfiguration()

    private func products(_ kernels: String, requests: Int = 1) throws -> Double {
        let device = try PlanExample.hardware(kernels: kernels)
        return try PlanExample.time(PlanExample.model(), device, one)
            .decode(requests: requests, context: 1, stage: 0)[.products]
    }

    @Test func `multiply what rows there are, or whole tiles of an expert's rows`() throws {
        let rows = try products(#"{"f32": {}, "bf16": {}}"#)
        let tiles = try products(#"{"f32": {}, "bf16": {"expert_tile": 128}}"#)
        // One token: a row for each of 8 experts in 58 layers.
        #expect(abs((tiles - rows) * 1e12 / (58 * 8 * 2 * 44.04e6 * 127) - 1) < 1e-3)
        // 64 tokens are 2.3 rows for each of 222.4 experts, which are not rounded without tiles.
        let many = try products(#"{"f32": {}, "bf16": {}}"#, requests: 64)
        #expect(abs(many / (64 * rows) - 1) < 1e-9)
    }

    @Test func `multiply whole tiles of all rows, but for the head, which is in F32`() throws {
        let rows = try products(#"{"f32": {}, "bf16": {}}"#)
        let tiles = try products(#"{"f32": {}, "bf16": {"row_tile": 16, "expert_tile": 16}}"#)
        let head = 1.853e9 / 1e12
        #expect(abs((tiles - head) / (16 * (rows - head)) - 1) < 1e-4)
        // Sixteen requests take no longer than one, but for their experts, which are more.
        let sixteen = try products(#"{"f32": {}, "bf16": {"row_tile": 16}}"#, requests: 16)
        #expect(abs(sixteen / (16 * rows) - 1) < 1e-9)
    }

    @Test func `reach fractions of the rates for products, index scores and attention`() throws {
        let model = try PlanExample.model()
        func time(_ kernels: String) throws -> StepTime {
            try PlanExample.time(model, PlanExample.hardware(kernels: kernels), one).prefill(0..<4096, stage: 0)
        }
        let whole = try time(#"{"bf16": {}}"#)
        let part = try time(#"{"bf16": {"products": 0.5, "index": 0.25, "attention": 0.125}}"#)
        #expect(part[.products] == 2 * whole[.products] && part[.index] == 4 * whole[.index])
        #expect(part[.attention] == 8 * whole[.attention])
    }

    @Test func `round to BF16 slowly where no instruction does, and fast with AMX`() throws {
        let table = try HardwareTable.builtIn()
        let epyc = try #require(table["epyc-9654"])
        #expect(abs(epyc.rate(.f32) / epyc.rate(.bf16) - 1.75) < 1e-9)
        #expect(epyc.rate(.fp8) == epyc.rate(.bf16) && epyc.rate(.fp4) == epyc.rate(.bf16))
        let xeon = try #require(table["xeon-8480"])
        #expect(xeon.rate(.bf16) > 5 * xeon.rate(.f32) && xeon.rate(.int8) == xeon.rate(.bf16))
        let h20 = try #require(table["h20"])
        #expect(h20.rate(.fp8) == 296e12 && h20.rate(.fp4) == 296e12 && h20.rate(.f32) == 148e12)
    }

    @Test func `of a class have a source, and every processor its cores`() throws {
        let path = Golden.root + "/Sources/Planning/Data/hardware.json"
        let file = try JSONValue(parsing: #require(FileManager.default.contents(atPath: path)))
        let classes = try #require(file["classes"]?.array)
        #expect(classes.count == (try HardwareTable.builtIn().classes.count))
        for entry in classes { #expect(entry["source"]?.string?.isEmpty == false) }
        for device in try #require(file["devices"]?.array) where device["kind"]?.string == "processor" {
            #expect((device["cores"]?.integer ?? 0) > 1, "\(device["name"]?.string ?? "")")
        }
    }

    @Test(arguments: [
        ("{}", "neither f32 nor bf16"), (#"{"f16": {}}"#, "'f16'"), (#"{"f32": {"tile": 1}}"#, "'tile'"),
        (#"{"f32": {"products": 0}}"#, "'products'"), (#"{"bf16": {"row_tile": "16"}}"#, "'row_tile'"),
    ])
    func `are refused by the key that is wrong`(kernels: String, words: String) throws {
        let error = #expect(throws: HardwareError.self) { try PlanExample.hardware(kernels: kernels) }
        #expect(error?.description.contains(words) == true, "\(String(describing: error))")
    }
}

/// The released model with FP4 experts, windows and compressed entries: 43 layers, of which 21 have an entry for every 4
/// tokens, 20 one for every 128, and two only a window of 128 tokens.
@Suite struct `Predicted windows and FP4 experts` {
    private let one = ParallelConfiguration()
    private let traffic = PlannedTraffic(input: 4096, output: 512)

    @Test func `take the bytes of their formats`() throws {
        let device = try PlanExample.hardware()
        func weights(_ all: Hardware.ElementType? = nil) throws -> Double {
            let model = try PlanExample.model(.v4Flash, weights: all)
            return MemoryNeed(try PlanExample.time(model, device, one), traffic).weights
        }
        // Two values in a byte, and a byte of scale for 32 of them; FP8 has four bytes for blocks of 128 by 128.
        let experts = 43.0 * 256 * 3 * 4096 * 2048
        #expect(abs((try weights(.fp8) - weights()) / (experts * (1 + 4 / 16_384.0 - 17 / 32.0)) - 1) < 1e-9)
        #expect(try weights() > 150e9 && weights() < 165e9)
        #expect("\(try PlanExample.model(.v4Flash).formats)" == "fp8, fp4 experts, bf16 others")
    }

    @Test func `read the keys of a window, and entries of several tokens`() throws {
        let model = try PlanExample.model(.v4Flash)
        let context = 131_072
        let device = try PlanExample.hardware(tflops: 1e6, bandwidth: 1)
        let time = try PlanExample.time(model, device, one).decode(requests: 1, context: context, stage: 0)
        // 448 elements with a byte of scale for 64 each and one byte more, and 64 rotary ones in BF16.
        let key = 448 + 448 / 64 + 1 + 2 * 64
        let keys = 43 * 128 + 21 * 512 + 20 * context / 128
        #expect(abs(time[.attention] * 1e9 / Double(keys * key) - 1) < 1e-9)
        // An index key of 132 bytes and a score of 4, written and read, for every 4 tokens.
        #expect(abs(time[.index] * 1e9 / Double(21 * (132 + 8) * context / 4) - 1) < 1e-9)
    }

    @Test func `keep windows beside the other keys`() throws {
        func memory(_ model: ReleasedModel, _ concurrency: Int, kind: String = "processor") throws -> MemoryNeed {
            let time = try PlanExample.time(PlanExample.model(model), PlanExample.hardware(kind: kind), one)
            return MemoryNeed(time, PlannedTraffic(input: 4096, output: 512, concurrency: concurrency, chunk: 1024))
        }
        #expect(try memory(.v32, 64).windows == 0)
        let (few, many) = (try memory(.v4Flash, 1), try memory(.v4Flash, 65))
        // Each request has three pages of 128 tokens, and as many for prefixes.
        let model = try PlanExample.model(.v4Flash)
        let page = Double(model.format.bytesPerWindowPage)
        #expect(abs((many.windows - few.windows) / (64 * 6 * page) - 1) < 1e-9)
        #expect(abs(few.windows / ((6 + 8) * page) - 1) < 1e-9)
        #expect(many.capacity < few.capacity && many.keysPerToken == few.keysPerToken)
        #expect(try memory(.v4Flash, 1, kind: "accelerator").windows == 3 * page)
    }

    @Test(arguments: ReleasedModel.allCases) func `are planned by name, as every released model`(
        released: ReleasedModel
    ) throws {
        let model = try PlanModels.named(released.rawValue.uppercased()) { _ in .bfloat16 }
        #expect(model.path == released.repository)
        #expect(try PlanModels.named(released.repository) { _ in .bfloat16 }.name == released.rawValue)
        for hardware in ["h20-141x16", "epyc-9654x8"] {
            let planner = try PlanExample.planner(hardware, model)
            let predictions = planner.predictions(planner.startableLayouts, traffic)
            let best = try #require(planner.ranked(predictions, .init()).first)
            #expect(best.firstToken.total > 0 && best.perToken.total > 0 && best.memory.capacity > 0)
        }
    }

    @Test func `are listed where a name is of none`() throws {
        let error = #expect(throws: (any Error).self) { try PlanModels.named("v4") { _ in .bfloat16 } }
        let text = "\(try #require(error))"
        #expect(ReleasedModel.allCases.allSatisfy { text.contains($0.rawValue) }, "\(text)")
    }
}
