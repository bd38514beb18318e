import Foundation
import JSON
import KVCache
import Modeling
import Models
import Parallelism
import Planning
import TestSupport
import Testing
import braid

@Suite struct `Calibration of predictions` {
    private let calibration: Calibration

    init() throws { calibration = try .builtIn() }

    private func record(_ parts: String, _ quantity: PublishedTable.Quantity) throws -> ClassRecord {
        let kind = try #require(
            calibration.classes.first { $0.family == "h20" && $0.parts == parts && $0.quantity == quantity })
        return try #require(calibration.records[kind])
    }

    @Test func `the efficiencies are those that fit the rows meant for it`() throws {
        let fitted = try Fit(
            PublishedTable.builtIn(), HardwareTable.builtIn(), model: PlanModels.ofPublished()
        ).run()
        #expect(fitted.json == (try EfficiencyTable.builtIn().json))
    }

    @Test func `rows that were held out fit nothing`() throws {
        let heldOut = try PublishedTable.builtIn().filter { $0.use != .fit }
        let fitted = try Fit(heldOut, HardwareTable.builtIn(), model: PlanModels.ofPublished()).run()
        let untouched = try Fit([], HardwareTable.builtIn(), model: PlanModels.ofPublished()).run()
        #expect(fitted.json == untouched.json)
    }

    @Test func `context ranks with gathered experts are within a tenth`() throws {
        let record = try record("context, gathered experts", .firstToken)
        let heldOut = try #require(record.heldOut)
        #expect(record.verdict == .calibrated)
        #expect(heldOut.count == 9 && heldOut.median <= 0.10 && heldOut.worst <= 0.30)
        #expect((0.7...0.9).contains(try #require(record.coverage)))
    }

    @Test func `what misses is said to`() throws {
        #expect(try record("context, all-to-all experts", .firstToken).verdict == .notCalibrated)
        #expect(try record("tensor, gathered experts", .firstToken).verdict == .notCalibrated)
        #expect(try record("tensor, gathered experts", .perToken).verdict == .fittedOnly)
        // Held out, but of runs whose seconds per token were fitted.
        #expect(try record("tensor, gathered experts", .throughput).verdict == .fittedOnly)
        #expect(try record("pipeline, context, gathered experts", .firstToken).verdict == .tooFew)
        #expect(try record("pipeline, context, gathered experts", .firstToken).interval == nil)
    }

    @Test func `an interval is given only near what was measured`() throws {
        let model = try PlanExample.model(.v32, cache: .bfloat16)
        let parallel = try ParallelConfiguration(
            notation: "cp8 etp8 gathered", for: model.description.parallelShape)
        func confidence(_ hardware: String, input: Int, _ quantity: PublishedTable.Quantity = .firstToken) throws
            -> Confidence
        {
            try calibration.confidence(
                quantity, model, Cluster(name: hardware), parallel, PlannedTraffic(input: input, output: 1))
        }
        let near = try confidence("h20-141x8", input: 40_000)
        #expect(near.note == nil && near.interval?.contains(1) == true)
        #expect(try confidence("h20-141x8", input: 500_000) == .notMeasured)
        #expect(try confidence("h20-141x4", input: 40_000) == .notMeasured)
        #expect(try confidence("h100x8", input: 40_000) == .notMeasured)
        #expect(try confidence("h20-141x8", input: 40_000, .perToken) == .notMeasured)
    }

    @Test func `every published table is predicted, or has a reason why not`() throws {
        for (number, table) in calibration.tables.enumerated() {
            let points = calibration.points.count { $0.table == number }
            #expect(points == table.rows.count, "\(table.what)")
            #expect((table.use == .notExpressible) == (points == 0))
            #expect(table.use != .notExpressible || table.reason?.isEmpty == false)
        }
        #expect(calibration.points.count { $0.use == .heldOut } == 41)
    }

    /// `BRAID_RECORD_PLANNING=1` writes the tables of `Docs/planning.md` anew, and fails.
    @Test func `the documentation has the errors that are`() throws {
        let file = URL(fileURLWithPath: Golden.root + "/Docs/planning.md")
        let text = try String(contentsOf: file, encoding: .utf8)
        let (begin, end) = ("<!-- braid plan --errors -->\n", "<!-- end -->")
        let start = try #require(text.range(of: begin)).upperBound
        let stop = try #require(text.range(of: end, range: start..<text.endIndex)).lowerBound
        let report = CalibrationReport(calibration).markdown
        if ProcessInfo.processInfo.environment["BRAID_RECORD_PLANNING"] == "1" {
            let new = text[..<start] + report + text[stop...]
            try Data(new.utf8).write(to: file)
            Issue.record("recorded the tables anew")
            return
        }
        #expect(text[start..<stop] == report, "BRAID_RECORD_PLANNING=1 writes Docs/planning.md anew")
    }
}

@Suite struct `Hardware to plan for` {
    @Test func `is a table whose entries have sources`() throws {
        let table = try HardwareTable.builtIn()
        for name in ["h20", "h20-3e", "h100", "h200", "h800", "b200", "gb200", "gb300", "910b", "910c", "mi300x"] {
            let device = try #require(table[name], "\(name)")
            #expect(!device.source.isEmpty && device.rate(.bf16) > 1e14 && device.rate(.fp8) >= device.rate(.bf16))
        }
        #expect(table.devices.contains { $0.kind == .processor && $0.name.hasPrefix("epyc") })
        #expect(Set(table.names).count == table.names.count)
    }

    @Test func `is named with a number, or refused with the names there are`() throws {
        let cluster = try Cluster(name: "h20x16")
        #expect(cluster.devices == 16 && cluster.hosts == 2 && cluster.hardware.name == "h20")
        #expect(try Cluster(name: "h200").devices == 1)
        for name in ["h21x8", "h20x0", "h20x", "x8", "", "h20x99999"] {
            let error = #expect(throws: HardwareError.self) { try Cluster(name: name) }
            #expect(error?.description.contains("h20-141") == true)
        }
    }

    @Test func `survives a file`() throws {
        for device in try HardwareTable.builtIn().devices {
            let again = try Hardware(JSONValue(parsing: device.json.pythonText))
            #expect(again.name == device.name && again.rates == device.rates && again.kind == device.kind)
            #expect(again.kernels == device.kernels && again.cores == device.cores)
        }
        var efficiencies = Efficiencies.measured
        efficiencies.attention = 0.5
        var tiles = KernelRates()
        (tiles.rowTile, tiles.expertTile, tiles.index, tiles.attention) = (16, 32, 0.5, 0.25)
        let measured = Hardware(
            name: "this", title: "a core", memoryBytes: 1e9, bandwidth: 1e9, rates: [.f32: 1e12, .bf16: 5e11],
            kernels: [.f32: KernelRates(), .bf16: tiles], linkBandwidth: 1e9, devicesPerHost: 2,
            efficiencies: efficiencies, source: "made up")
        #expect(try Hardware(JSONValue(parsing: measured.json.pythonText)) == measured)
    }

    @Test(arguments: [
        "name", "title", "kind", "family", "memory_gb", "bandwidth_gb_s", "tflops", "link_gb_s",
        "host_link_gb_s", "devices_per_host", "source", "kernels",
    ])
    func `needs every key`(key: String) throws {
        let whole = try #require(try HardwareTable.builtIn()["h20"]?.json.object)
        let error = #expect(throws: HardwareError.self) { try Hardware(.object(whole.filter { $0.key != key })) }
        #expect(error?.description.contains(key) == true)
    }
}
