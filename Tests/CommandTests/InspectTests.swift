import ArgumentParser
import Checkpoints
import DeepSeekV32
import DeepSeekV4
import Foundation
import Inference
import JSON
import KVCache
import Modeling
import Models
import Parallelism
import Planning
import Serving
import Tensors
import TestSupport
import Testing
import braid

@Suite struct `Inspecting a layout` {
    static let layouts: [ParallelConfiguration] = [
        .init(), .init(context: 4, expert: 4), .init(context: 4, expert: 4, strategy: .zigzag, exchange: .allToAll),
        .init(context: 2, tensor: 2, expert: 2, expertTensor: 2, denseTensor: 2, strategy: .contiguous),
        .init(data: 2, context: 2, expert: 4, pipeline: 3), .init(context: 3), .init(context: 16, tensor: 4, expert: 4),
        .init(data: 8, tensor: 2, expert: 4, expertTensor: 4, pipeline: 2, exchange: .allToAll),
        .init(context: 2, tensor: 2, expert: 4, kvSharding: KVSharding(ranks: 4, unit: 2, minKeys: 1)),
        .init(data: 2, context: 4, expert: 4, pipeline: 2, kvSharding: KVSharding(ranks: 2)),
    ]

    func model(_ type: String = "deepseek_v32") throws -> DeepSeekConfiguration {
        let text = """
            {"model_type": "\(type)", "vocab_size": 96, "hidden_size": 32, "num_hidden_layers": 3,
             "first_k_dense_replace": 1, "intermediate_size": 48, "max_position_embeddings": 4096,
             "rms_norm_eps": 1e-6, "num_attention_heads": 4, "q_lora_rank": 16, "kv_lora_rank": 8,
             "qk_nope_head_dim": 4, "qk_rope_head_dim": 4, "v_head_dim": 4, "rope_theta": 10000,
             "index_n_heads": 2, "index_head_dim": 8, "index_topk": 5, "n_routed_experts": 4,
             "num_experts_per_tok": 2, "moe_intermediate_size": 8, "n_shared_experts": 1,
             "n_group": 1, "topk_group": 1, "routed_scaling_factor": 1}
            """
        return try DeepSeekConfiguration(ModelConfigurationFile.parse(Array(text.utf8), file: "config.json"))
    }

    /// Each weight takes one byte, so that bytes are counts.
    private func report(
        _ parallel: ParallelConfiguration, name: String = "tiny", type: String = "deepseek_v32", tokens: Int = 64,
        chunk: Int = 64, memory: Int = 1 << 20
    ) throws -> LayoutReport {
        LayoutReport(
            name, try model(type).description, parallel,
            format: try model(type).cacheFormat(.float32, pageSize: 128), example: .init(tokens: tokens, chunk: chunk),
            memory: memory
        ) { $0.elements }
    }

    @Test func `tells the threads of a rank, where there are several`() throws {
        func report(_ threads: Int) throws -> LayoutReport {
            LayoutReport(
                "tiny", try model().description, ParallelConfiguration(), threadsPerRank: threads,
                format: try model().cacheFormat(.float32, pageSize: 128),
                example: .init(tokens: 8, chunk: 8), memory: 1 << 20
            ) { $0.elements }
        }
        #expect(try report(3).text.contains("threads      3 a rank"))
        #expect(try !report(1).text.contains("threads"))
        #expect(try report(3).json["threads_per_rank"]?.integer == 3)
    }

    @Test func `prints what a person reads`() throws {
        let parallel = ParallelConfiguration(
            context: 2, tensor: 2, expert: 2, expertTensor: 2, denseTensor: 2, exchange: .allToAll,
            kvSharding: KVSharding(ranks: 4, unit: 2, minKeys: 32))
        let expected = """
            layout       4 ranks: context 2 × tensor 2, interleaved; experts 2 by expert × 2 by width, allToAll; keys owned by 4 in \
            runs of 2
            bits         those of one rank
            cache        float32: 80 bytes per token and layer; a rank writes those of its rows
            keys         token t belongs to rank ⌊t / 2⌋ mod 4 of each 4 consecutive ranks of a data group
            memory       0.00 GiB: weights 0.00 GiB, mapped once for all 4 ranks
            capacity     4 255 tokens in the rest, in one cache for all ranks

            ranks, for a prompt of 64 tokens in one step
            rank  context  tensor  layers  heads  experts  columns  weights  rows  KV/token  attention      gets
               0        0       0     0–2    0–1      0–1      0–3  15.4 kB    16        60     24.6 %  ~68.5 kB
               1        0       1     0–2    2–3      0–1      4–7  15.4 kB    16        60     24.6 %  ~68.2 kB
               2        1       0     0–2    0–1      2–3      0–3  15.4 kB    16        60     25.4 %  ~68.2 kB
               3        1       1     0–2    2–3      2–3      4–7  15.4 kB    16        60     25.4 %  ~68.1 kB
            columns: of each expert · weights: as read, from one mapping for all ranks · KV/token: bytes it writes
            attention: part of a prompt's pairs of row and key × heads · gets: bytes from other ranks

            sequence, interleaved: row g of a step goes to context rank g mod 2
            0101010101010101010101010101010101010101010101010101010101010101
            one character is one token

            capacity, if every rank keeps what it owns in 0.00 GiB of its own
            keys owned by  KV/token and rank  tokens
                        1                240   4 304
                        2                120   8 608
                  this: 4                 60  17 216
                        8                 30  34 432

            attention after 64 tokens
            step                        way                           rows
            a request decodes           query-gather attention           1
            3 requests decode           query-gather attention           3
            4 requests decode           owners of rows read all keys     4
            5 requests decode           query-gather attention           5
            a question of 5 tokens      owners of rows read all keys     5
            a question of 64 tokens     owners of rows read all keys    64
            a prompt's first 64 tokens  owners of rows read all keys    64
            query-gather attention reads at least 32 keys, and takes a fifth off what the busiest rank reads

            layer 0, dense
            collective           kind            group             ranks         row  bytes/token  per rank
            keys                 shared memory   context × tensor      4  [20] cache          240        60
            query                all-gather      tensor                2    [16] f32           64        16
            selection            all-gather      tensor                2     [5] i32           20         5
            attention output     reduce-scatter  tensor                2    [32] f32          128        32
            feed-forward input   all-gather      dense                 2    [32] f32          128        32
            feed-forward output  reduce-scatter  dense                 2    [32] f32          128        32
            selection: only for groups with a row at position 5 or later

            each of layers 1–2, experts
            collective           kind            group             ranks         row  bytes/token  per rank
            keys                 shared memory   context × tensor      4  [20] cache          240        60
            query                all-gather      tensor                2    [16] f32           64        16
            selection            all-gather      tensor                2     [5] i32           20         5
            attention output     reduce-scatter  tensor                2    [32] f32          128        32
            dispatch             all-to-all      context × tensor      4    [48] f32         ~480      ~120
            feed-forward input   all-gather      dense                 2    [32] f32          128        32
            feed-forward output  reduce-scatter  dense                 2    [32] f32          128        32
            expert tensor        all-to-all      expert tensor         2    [32] f32       ~426.7    ~106.7
            combine              all-to-all      context × tensor      4    [32] f32         ~160       ~40
            selection: only for groups with a row at position 5 or later
            ~ expected, if the router prefers no expert

            every layer, for rows of query-gather attention
            collective         kind        group      ranks                 row  bytes/row  per rank
            index queries      all-gather  KV owners      4            [18] f32        216        54
            candidates         all-to-all  KV owners      4            [11] f32        132        33
            queries            all-gather  KV owners      4  [24] f32 + [5] i32        696       174
            partial attention  all-to-all  KV owners      4            [36] f32        864       216
            index queries: only for groups with a row at position 5 or later
            candidates: only for groups with a row at position 5 or later

            last stage, for rows whose logits are needed
            collective  kind        group             ranks       row  bytes/row  per rank
            outputs     all-gather  context × tensor      4  [32] f32        384        96
            logits      all-to-all  context × tensor      4  [24] f32        288        72
            """
        let text = try report(parallel).text
        #expect(text == expected)
    }

    @Test(arguments: layouts, ["deepseek_v32", "deepseek_v3"])
    func `shows every collective in words, numbers and pictures`(parallel: ParallelConfiguration, type: String) throws {
        let report = try report(parallel, type: type, chunk: 24)
        let transfers = report.cost.layerKinds.flatMap { report.cost.transfers(of: $0) } + report.cost.transfersOfStages
        #expect(transfers.isEmpty == (parallel.world == 1))
        #expect(XMLScanner.fault(in: report.drawing) == nil)
        let json = try JSONValue(parsing: Array(report.json.pythonText.utf8))
        let named = Set(
            ((json["layers"]?.array ?? []) + [json]).flatMap { layer in
                (layer["collectives"] ?? layer["stages"])?.array?.compactMap { $0["name"]?.string } ?? []
            })
        #expect(named == Set(transfers.map(\.name)))
        for transfer in transfers {
            #expect(report.text.contains("\n\(transfer.name) "), "\(transfer.name)")
            #expect(report.drawing.contains(">\(transfer.name)</text>"), "\(transfer.name)")
        }
    }

    @Test(arguments: layouts, ["deepseek_v32", "deepseek_v3"])
    func `gives each rank its part of weights, rows and work`(parallel: ParallelConfiguration, type: String) throws {
        let report = try report(parallel, type: type, chunk: 24)
        #expect(report.weightBytes == report.model.parameters.total)
        for group in report.model.weights {
            let readers = report.ranks.reduce(0) { $0 + $1.share.fraction(of: group) }
            let copies =
                switch group.weights.split {
                case .whole: parallel.stageRanks
                case .heads: parallel.data * parallel.context
                case .dense: parallel.stageRanks / parallel.denseTensor
                case .expert: parallel.replicatesExperts ? parallel.stageRanks : 1
                case .vocabulary: 1
                }
            #expect(abs(readers - Double(copies)) < 1e-9, "\(group.weights.names)")
        }
        #expect(report.ranks.reduce(0) { $0 + $1.rows } == 64 * parallel.data * parallel.pipeline)
        #expect(abs(report.ranks.reduce(0) { $0 + $1.causalWork } - Double(parallel.data * parallel.pipeline)) < 1e-9)
        #expect(
            report.ranks.reduce(0) { $0 + report.cacheBytesPerToken(of: $1) } == Double(report.cacheBytesPerToken))
    }

    @Test func `shows how uneven a split is`() throws {
        func work(_ strategy: PartitionStrategy) throws -> [Double] {
            try report(.init(context: 4, expert: 4, strategy: strategy), tokens: 4096, chunk: 4096).ranks
                .map { ($0.causalWork * 1000).rounded() }
        }
        #expect(try work(.contiguous) == [63, 188, 312, 437])
        #expect(try work(.zigzag) == [250, 250, 250, 250])
        #expect(try work(.interleaved) == [250, 250, 250, 250])
    }

    /// V4-Flash's windows are of 128 keys. Zigzag cuts 32,768 tokens into 16 blocks, and 14 of the borders lie between
    /// two ranks: the later one receives 127 keys, and for overlapping entries the compressors' inputs of 4 tokens. 7
    /// ranks receive as many of the last tokens, and 7 as many before the last page border inside the prompt. Everything
    /// else is compressed entries.
    @Test func `compares V4's keys with gathering whole sequences`() throws {
        let configuration = try ReleasedModel.v4Flash.configuration()
        let format = configuration.cacheFormat(.fp8, pageSize: 128, drafts: false)
        func report(_ parallel: ParallelConfiguration) -> LayoutReport {
            LayoutReport(
                "V4-Flash", configuration.description, parallel, cacheType: .fp8, format: format,
                example: .init(tokens: 32_768, chunk: 32_768), memory: 1 << 40
            ) { $0.elements }
        }
        let zigzag = report(.init(context: 8, expert: 8, strategy: .zigzag))
        // A key has 448 elements in FP8 with 7 scales of a byte and one byte more, and 64 in BF16; an index key has 128
        // elements and one scale of four bytes.
        let (key, index) = (448 + 7 + 1 + 2 * 64, 128 + 4)
        #expect(key == 584)
        let (ofCSA, ofHCA) = (4 * 2 * 2 * (512 + 128), 4 * 2 * 512)
        let window = 28 * 127 * key
        let csa = window + 28 * 4 * ofCSA + 7 * 8192 * (key + index)
        let hca = window + 7 * 256 * key
        func perTokenAndRank(_ bytes: Int) -> Double { Double(bytes) / 32_768 / 8 }
        let expected: [(kind: String, layers: Int, moved: Int, whole: Int)] = [
            ("window (hash routing)", 2, window, key), ("compressed sparse (hash routing)", 1, csa, key + ofCSA),
            ("heavily compressed", 20, hca, key + ofHCA), ("compressed sparse", 20, csa, key + ofCSA),
        ]
        let traffic = zigzag.keyTraffic
        #expect(traffic.map(\.kind) == expected.map(\.kind) && traffic.map(\.layers) == expected.map(\.layers))
        #expect(traffic.map(\.moved) == expected.map { perTokenAndRank($0.moved) })
        #expect(traffic.map(\.wholeSequences) == expected.map { Double($0.whole) * 7 / 8 })
        #expect(traffic[3].factor >= 50 && traffic[2].factor >= 300)
        #expect(
            zigzag.text.contains(
                """
                keys that a rank receives in each layer, and what gathering whole sequences would move
                layers  kind                              bytes/token  whole sequences    ratio
                2       window (hash routing)                     7.9              511   1/64.5
                1       compressed sparse (hash routing)        168.9            9 471   1/56.1
                20      heavily compressed                       11.9            4 095  1/343.7
                20      compressed sparse                       168.9            9 471   1/56.1
                """))
        #expect(
            zigzag.text.contains(
                "bytes of each: window 584, compressor inputs 10 240, entries of 4 tokens 716, compressor inputs 4 096, "
                    + "entries of 128 tokens 584\n"))
        #expect(zigzag.json["key_traffic"]?.array?.count == 4)
        // Units that are dealt one by one have a border each.
        #expect(report(.init(context: 8, expert: 8)).keyTraffic[3].factor < 35)
        #expect(report(.init(tensor: 8, expert: 8)).keyTraffic.isEmpty)
    }

    @Test func `counts the tokens that fit beside the weights`() throws {
        let weights = try model().description.parameters.total
        let perToken = 3 * 4 * (8 + 4 + 8)
        #expect(try report(.init(), memory: weights + 10 * perToken + 1).capacity == 10)
        let small = try report(.init(), memory: weights - 1)
        #expect(small.capacity == 0)
        #expect(small.text.contains("the weights alone need more"))
        // The ranks of a process share one cache.
        #expect(try report(.init(context: 4, expert: 4), memory: weights + 10 * perToken).capacity == 10)
    }

    @Test func `has room for contexts of any length where layers keep windows only`() throws {
        var configuration = try #require(try ReleasedModel.v4Flash.configuration() as? DeepSeekV4Configuration)
        configuration.kinds = configuration.kinds.map { _ in .slidingWindow }
        func report(memory: Int) -> LayoutReport {
            LayoutReport(
                "V4", configuration.description, .init(context: 2, expert: 2), cacheType: .fp8,
                format: configuration.cacheFormat(.fp8, pageSize: 128), example: .init(tokens: 1000, chunk: 1000),
                memory: memory
            ) { $0.elements }
        }
        #expect(report(memory: 1 << 40).text.contains("contexts of any length"))
        #expect(report(memory: 1 << 20).capacity == 0)
    }

    @Test func `has room for as many times the tokens as ranks own keys`() throws {
        let perToken = 3 * 4 * (8 + 4 + 8)
        for owners in [1, 2, 4, 8] {
            let parallel = ParallelConfiguration(context: owners, kvSharding: KVSharding(ranks: owners))
            let report = try report(parallel, memory: try model().description.parameters.total + 100 * perToken)
            let capacities = report.capacities
            #expect(capacities.map(\.owners) == [1, 2, 4, 8])
            #expect(capacities[0].tokens == report.keyMemory / perToken)
            for capacity in capacities {
                #expect(capacity.tokens == capacities[0].tokens * capacity.owners)
                #expect(capacity.bytesPerToken == Double(perToken) / Double(capacity.owners))
            }
        }
        let three = ParallelConfiguration(context: 3, kvSharding: KVSharding(ranks: 3))
        #expect(try report(three).capacities.map(\.owners) == [1, 2, 3, 4, 8])
    }

    @Test func `says which steps use query-gather attention`() throws {
        func rows(_ kvSharding: KVSharding, tokens: Int = 64) throws -> [Int] {
            try report(.init(context: kvSharding.ranks, kvSharding: kvSharding), tokens: tokens, chunk: tokens).ways
                .filter(\.usesDCP).map(\.rows)
        }
        #expect(try rows(KVSharding(ranks: 4, minKeys: 32)) == [1, 3, 5])
        #expect(try rows(KVSharding(ranks: 2, minKeys: 32)) == [1, 3])
        #expect(try rows(KVSharding(ranks: 4, minKeys: 66)) == [])
        #expect(try report(.init(context: 4)).ways == [])
    }

    @Test func `draws names that mean something to XML`() throws {
        let drawing = try report(.init(context: 2), name: "<a & \"b\">\u{1}").drawing
        #expect(XMLScanner.fault(in: drawing) == nil)
        #expect(drawing.contains("&lt;a &amp; &quot;b&quot;&gt;"))
    }

    @Test(arguments: [
        "<a><b></a></b>", "<a", "<a/>&", "<a x=1/>", "<a x=\"<\"/>", "<a/><b/>", "<a>\u{1}</a>", "<a>&foo;</a>", "",
    ])
    func `would notice a drawing that is no XML`(text: String) { #expect(XMLScanner.fault(in: text) != nil) }
}

@Suite struct `A strip of a sequence` {
    private func owners(_ strategy: PartitionStrategy, _ length: Int, _ ranks: Int) -> [Int] {
        var owners = Array(repeating: 0, count: length)
        for (rank, rows) in TokenPartition(strategy, lengths: [length], ranks: ranks).rows.enumerated() {
            for row in rows { owners[row] = rank }
        }
        return owners
    }

    @Test func `shows blocks as a whole and interleaving in part`() {
        let zigzag = SequenceStrip(owners(.zigzag, 64, 2), width: 16)
        #expect(zigzag.text == "0000111111110000")
        #expect(zigzag.caption == "one character is 4 tokens")
        #expect(zigzag.runs.map(\.owner) == [0, 1, 0])
        let contiguous = SequenceStrip(owners(.contiguous, 30, 3), width: 12)
        #expect(contiguous.text == "000011112222")
        #expect(contiguous.caption == "one character is 2 or 3 tokens")
        let interleaved = SequenceStrip(owners(.interleaved, 5000, 3), width: 7)
        #expect(interleaved.text == "0120120")
        #expect(interleaved.caption == "one character is one token: the first 7 of 5 000")
        let short = SequenceStrip(owners(.interleaved, 5, 4), width: 16)
        #expect(short.text == "01230")
        #expect(short.caption == "one character is one token")
    }

    @Test func `has a character for each of 64 ranks`() {
        #expect(Set((0..<64).map(SequenceStrip.digit)).count == 64)
    }
}

@Suite struct `What ranks exchanged` {
    @Test func `adds up over steps, and excludes earlier ones`() throws {
        let model = try `Inspecting a layout`().model()
        let cost = LayoutCost(
            model.description, .init(context: 2, expert: 2, exchange: .allToAll),
            format: model.cacheFormat(.float32, pageSize: 128))
        let step = RankTraffic(predicted: cost, StepRows(owned: [3, 2], outputs: [0, 1], maxPosition: [4, 3]))
        // The bytes are, in three layers, 80 bytes of keys for each of the other rank's rows; a state of 32 numbers,
        // and half of the vocabulary of 96.
        #expect(step.operations.first { $0.name == "keys" }?.predicted == 1200.0)
        #expect(step.operations.first { $0.name == "outputs" }?.predicted == 128.0)
        #expect(step.operations.first { $0.name == "logits" }?.predicted == 192.0)
        #expect(step.operations.filter(\.isExpected).map(\.name) == ["dispatch", "combine"])
        var sum = RankTraffic(ranks: 2)
        for _ in 0..<4 { sum.add(step) }
        #expect(sum.predicted == 4 * step.predicted)
        #expect(sum.divided(by: 4).predicted == step.predicted)
        #expect(sum.since(step).predicted == 3 * step.predicted)
        #expect(sum.isExpected && sum.skew == 0)
    }
}

@Suite struct `Tables and amounts` {
    @Test func `align words left and numbers right`() {
        var table = TextTable(["name", "number"], left: 1)
        table.add(["a", "1"])
        table.add(["longer", "22"])
        #expect(table.lines == ["name    number", "a            1", "longer      22"])
    }

    @Test(arguments: [
        (0.0, "0 B"), (999, "999 B"), (1.5, "1.50 B"), (1000, "1.00 kB"), (99_940, "99.9 kB"), (99_960, "100 kB"),
        (999_600, "1.00 MB"), (5_240_000, "5.24 MB"), (7e15, "7000 TB"),
    ])
    func `have three digits and a unit`(bytes: Double, text: String) { #expect(bytesText(bytes) == text) }
}

/// Tells whether a text is one well-formed XML element: tags nest, attributes are quoted, and special characters are
/// escaped.
private enum XMLScanner {
    static func fault(in text: String) -> String? {
        var rest = Substring(text)
        var open: [String] = []
        var roots = 0
        while !rest.isEmpty {
            let words = rest.prefix { $0 != "<" }
            if let fault = fault(inWords: words) { return fault }
            if open.isEmpty, words.contains(where: { !$0.isWhitespace }) { return "words outside: \(words)" }
            rest = rest.dropFirst(words.count)
            guard !rest.isEmpty else { break }
            guard let end = rest.firstIndex(of: ">") else { return "a tag without end" }
            let tag = rest[rest.index(after: rest.startIndex)..<end]
            rest = rest[rest.index(after: end)...]
            if tag.hasPrefix("/") {
                guard open.popLast() == String(tag.dropFirst()) else { return "\(tag) closes nothing" }
                continue
            }
            guard let match = tag.wholeMatch(of: #/([a-z]+)((\s+[a-zA-Z:-]+="[^"<]*")*)(/?)/#) else {
                return "<\(tag)>"
            }
            if let fault = fault(inWords: match.2) { return fault }
            if open.isEmpty { roots += 1 }
            if match.4.isEmpty { open.append(String(match.1)) }
        }
        return open.isEmpty && roots == 1 ? nil : "\(roots) roots, open: \(open)"
    }

    private static func fault(inWords words: Substring) -> String? {
        if words.unicodeScalars.contains(where: { $0.value < 32 && $0 != "\n" }) { return "control characters" }
        return words.replacing(#/&(amp|lt|gt|quot);/#, with: "").contains("&") ? "bare &: \(words)" : nil
    }
}

@Suite struct `A directory without weights` {
    private func directory(_ body: (String) async throws -> Void) async throws {
        let path = NSTemporaryDirectory() + "braid-\(UUID().uuidString)"
        try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(atPath: path) }
        try FileManager.default.copyItem(
            atPath: Golden.root + "/Models/demo/config.json", toPath: path + "/config.json")
        try await body(path)
    }

    private func run(_ arguments: [String]) async throws {
        var command = try Braid.parseAsRoot(arguments)
        if var command = command as? any AsyncParsableCommand { try await command.run() } else { try command.run() }
    }

    @Test func `is inspected and planned for`() async throws {
        try await directory { path in
            try await run(["inspect", "--model-path", path])
            try await run(["plan", "--model-path", path, "--hardware", "epyc-9654x2"])
            // An index whose files have not come yet is no reason to refuse.
            try Data(#"{"weight_map": {"a": "model-00001-of-00002.safetensors"}}"#.utf8)
                .write(to: URL(fileURLWithPath: path + "/model.safetensors.index.json"))
            try await run(["inspect", "--model-path", path])
        }
    }

    @Test func `is told from one whose weights are damaged`() async throws {
        try await directory { path in
            try Data([1, 2, 3]).write(to: URL(fileURLWithPath: path + "/model.safetensors"))
            await #expect(throws: CheckpointError.self) { try await run(["inspect", "--model-path", path]) }
            try await run(["inspect", "--model-path", path, "--config-only"])
        }
    }

    @Test func `is told from one whose weights are of another model`() async throws {
        try await directory { path in
            let demo = Golden.root + "/Models/demo"
            for name in try FileManager.default.contentsOfDirectory(atPath: demo) where name.contains("safetensors") {
                try FileManager.default.createSymbolicLink(
                    atPath: "\(path)/\(name)", withDestinationPath: "\(demo)/\(name)")
            }
            try await run(["inspect", "--model-path", path])
            let config = try String(contentsOfFile: path + "/config.json", encoding: .utf8)
            let changed = config.replacing(/"num_hidden_layers": \d+/, with: #""num_hidden_layers": 3"#)
            #expect(changed != config)
            try Data(changed.utf8).write(to: URL(fileURLWithPath: path + "/config.json"))
            // The rest of what can be told is told, and then every tensor that has no place.
            let text = try Program.run(["inspect", "--model-path", path])
            #expect(text.status == 1 && text.errors.isEmpty, "\(text.errors)")
            for words in [
                "capacity", "weights that do not fit config.json: ", "num_hidden_layers 3", "--json has them all",
            ] {
                #expect(text.output.contains(words), "\(text.output)")
            }
            let json = try Program.run(["inspect", "--model-path", path, "--json"])
            let misfits = try JSONValue(parsing: json.output)["misfits"]?.array?.compactMap(\.string) ?? []
            #expect(json.status == 1 && misfits.count > 10)
            #expect(misfits.allSatisfy { $0.contains("model.layers.") && $0.contains("num_hidden_layers 3") })
            try await run(["inspect", "--model-path", path, "--config-only"])
        }
    }

    @Test func `is told from one whose tensors are missing or have other sizes`() async throws {
        try await directory { path in
            let demo = Golden.root + "/Models/demo"
            for name in try FileManager.default.contentsOfDirectory(atPath: demo) where name.contains("safetensors") {
                try FileManager.default.createSymbolicLink(
                    atPath: "\(path)/\(name)", withDestinationPath: "\(demo)/\(name)")
            }
            let config = try String(contentsOfFile: path + "/config.json", encoding: .utf8)
            for (member, words) in [
                ("num_hidden_layers", "is in none of the"),
                ("moe_intermediate_size", "has shape ["),
            ] {
                let number = try #require(
                    config.firstMatch(of: try Regex("\"\(member)\": (\\d+)", as: (Substring, Substring).self)))
                let changed = config.replacing(number.0, with: "\"\(member)\": \(Int(number.1)! * 2)")
                try Data(changed.utf8).write(to: URL(fileURLWithPath: path + "/config.json"))
                let run = try Program.run(["inspect", "--model-path", path])
                #expect(run.status == 1 && run.output.contains(words), "\(run.output) \(run.errors)")
            }
        }
    }

    @Test(arguments: [
        ("model.layers.0.mlp.down_proj.weight", "has shape [384, 128], but config.json asks for [128, 384]"),
        ("model.embed_tokens.weight", "has shape [128, 1536], but config.json asks for [1536, 128]"),
    ])
    func `is told from one with a transposed tensor`(name: String, words: String) async throws {
        try await directory { path in
            let demo = Golden.root + "/Models/demo"
            for name in try FileManager.default.contentsOfDirectory(atPath: demo) where name.contains("safetensors") {
                try FileManager.default.copyItem(atPath: "\(demo)/\(name)", toPath: "\(path)/\(name)")
            }
            try await run(["inspect", "--model-path", path])
            let file = URL(fileURLWithPath: path + "/model.safetensors")
            var bytes = try Data(contentsOf: file)
            let tensor = try #require(bytes.firstRange(of: Data("\"\(name)\"".utf8)))
            let shape = try #require(bytes.firstRange(of: Data("\"shape\":[".utf8), in: tensor.upperBound...))
            let end = try #require(bytes[shape.upperBound...].firstIndex(of: UInt8(ascii: "]")))
            let sizes = bytes[shape.upperBound..<end].split(separator: UInt8(ascii: ","))
            bytes.replaceSubrange(
                shape.upperBound..<end, with: Data(sizes.reversed().joined(separator: [UInt8(ascii: ",")])))
            try bytes.write(to: file)
            let run = try Program.run(["inspect", "--model-path", path])
            #expect(run.status == 1 && run.output.contains("weights that do not fit config.json: 1"), "\(run.output)")
            #expect(run.output.contains(name) && run.output.contains(words), "\(run.output)")
            let error = #expect(throws: CheckpointError.self) { _ = try ModelDirectory(path).load() }
            #expect(error?.description.contains(words) == true, "\(String(describing: error))")
        }
    }

    @Test(arguments: [1024, 64, -1]) func `is drawn for a server's page as it is for a file`(chunk: Int) async throws {
        try await directory { path in
            let file = path + "/layout.svg"
            try await run([
                "inspect", "--model-path", path, "--tp-size", "4", "--attn-cp-size", "2", "--ep-size", "4",
                "--chunked-prefill-size", "\(chunk < 0 ? 4096 : chunk)", "--svg", file,
            ])
            var engine = EngineConfiguration()
            engine.parallel = ParallelConfiguration(context: 2, tensor: 2, expert: 4, denseTensor: 2)
            engine.chunkedPrefillSize = chunk
            let drawing = LayoutDrawing(try ModelDirectory(path), engine)
            #expect(try String(contentsOfFile: file, encoding: .utf8) == drawing.svg)
            let colours = drawing.colours
            #expect(
                colours.count == 4 && colours[0] == colours[1] && colours[2] == colours[3] && Set(colours).count == 2)
            #expect(Set(colours).allSatisfy { drawing.svg.contains($0) })
        }
    }
}
