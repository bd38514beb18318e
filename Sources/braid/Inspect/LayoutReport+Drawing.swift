import Modeling
import Parallelism
import Planning

extension LayoutReport {
    /// The configuration as SVG: the owners of tokens, the mesh of ranks, and one layer's operations with its
    /// collectives.
    package var drawing: String {
        var drawing = Drawing(width: 960)
        drawing.words(name, Self.margin, 34, size: 18, bold: true)
        drawing.words("\(parallel)", Self.margin, 54, fill: Drawing.quiet)
        drawing.y = 84
        draw(sequence: &drawing)
        draw(mesh: &drawing)
        draw(paths: &drawing)
        return drawing.xml(title: "\(name), \(parallel)")
    }

    /// The colour of each rank in the drawing.
    var colours: [String] { ranks.map { colour($0.coordinates[2].place) } }

    private static let margin = 28.0
    private static let inner = 960 - 2 * margin

    private func colour(_ context: Int) -> String { Drawing.colour(context, of: parallel.context) }

    private func heading(_ title: String, _ note: String, _ drawing: inout Drawing) {
        drawing.words(title, Self.margin, drawing.y, size: 14, bold: true)
        drawing.words(note, 960 - Self.margin, drawing.y, size: 11, anchor: .end, fill: Drawing.quiet)
        drawing.y += 12
    }

    // MARK: - The sequence

    private func draw(sequence drawing: inout Drawing) {
        let strip = SequenceStrip(owners, width: 64)
        let chunks = example.chunk < example.tokens ? ", chunks of \(grouped(example.chunk))" : ""
        heading(
            "The sequence: \(grouped(example.tokens)) tokens, \(parallel.strategy)\(chunks)",
            strip.isBeginning
                ? "the first \(strip.cells.count) tokens, one cell each" : "from the first token to the last",
            &drawing)
        let runs = strip.isBeginning ? strip.cells.map { .init(owner: strip.owner(of: $0), tokens: $0) } : strip.runs
        let unit = Self.inner / Double(runs.last!.tokens.upperBound)
        for run in runs {
            let (x, width) = (Self.margin + Double(run.tokens.lowerBound) * unit, Double(run.tokens.count) * unit)
            drawing.box(x, drawing.y, width, 30, fill: colour(run.owner), edge: "#ffffff", radius: 2)
            if width >= 12 { drawing.words("\(run.owner)", x + width / 2, drawing.y + 19, size: 11, anchor: .middle) }
        }
        drawing.y += 44
        draw(work: &drawing)
        drawing.y += 30
    }

    /// Draws a bar for each context rank: its part of the causal work.
    private func draw(work drawing: inout Drawing) {
        let places = (0..<parallel.context).map { context in
            ranks[..<(parallel.context * parallel.tensor)].filter { $0.coordinates[2].place == context }
        }
        let work = places.map { $0.reduce(0) { $0 + $1.causalWork } }
        let most = work.max()!
        let (step, size) = places.count > 16 ? (11.0, 9.0) : (18.0, 11.0)
        for (context, ranks) in places.enumerated() {
            let y = drawing.y + Double(context) * step
            let rows = ranks.reduce(0) { $0 + $1.rows }
            drawing.words(
                "context rank \(context): \(grouped(rows)) rows", Self.margin, y + step - 5, size: size)
            drawing.box(
                Self.margin + 200, y + 1, max(work[context] / most * (Self.inner - 370), 1), step - 4,
                fill: colour(context), radius: 2)
            drawing.words(
                "\(percent(work[context])) of the causal work", 960 - Self.margin, y + step - 5, size: size,
                anchor: .end)
        }
        drawing.y += Double(places.count) * step
    }

    // MARK: - The mesh

    private func draw(mesh drawing: inout Drawing) {
        let degrees = "\(parallel.pipeline) × \(parallel.data) × \(parallel.context) × \(parallel.tensor)"
        heading("The ranks", "stages × data × context × tensor: \(degrees)", &drawing)
        let (label, gap) = (112.0, 14.0)
        let side = Double(parallel.tensor)
        let perLine = max(1, min(parallel.pipeline, Int((Self.inner + gap) / (label + 44 * side + gap))))
        let width = (Self.inner - gap * Double(perLine - 1)) / Double(perLine)
        let cell = (x: (width - label - 8) / side, y: parallel.data * parallel.context > 16 ? 20.0 : 40.0)
        let height = 34 + cell.y * Double(parallel.data * parallel.context)
        for stage in 0..<parallel.pipeline {
            let (line, column) = stage.quotientAndRemainder(dividingBy: perLine)
            let (x, y) = (
                Self.margin + Double(column) * (width + gap), drawing.y + Double(line) * (height + gap)
            )
            drawing.box(x, y, width, height, fill: Drawing.grey, radius: 6)
            let layers = parallel.layers(ofStage: stage, total: model.layers.count)
            drawing.words(
                "stage \(stage): \(ranged("layer", layers))", x + 10, y + 19, bold: true)
            for rank in ranks where rank.share.stage == stage {
                draw(rank, x + label, y + 28, cell, labelAt: x + 10, &drawing)
            }
        }
        let lines = (parallel.pipeline + perLine - 1) / perLine
        drawing.y += Double(lines) * (height + gap) + 26
    }

    private func draw(
        _ rank: Rank, _ x: Double, _ y: Double, _ cell: (x: Double, y: Double), labelAt labelX: Double,
        _ drawing: inout Drawing
    ) {
        let (data, context, tensor) = (rank.coordinates[1].place, rank.coordinates[2].place, rank.coordinates[3].place)
        let (left, top) = (x + Double(tensor) * cell.x, y + Double(data * parallel.context + context) * cell.y)
        if tensor == 0 {
            drawing.words("data \(data) · context \(context)", labelX, top + cell.y / 2 + 3, size: 10)
        }
        drawing.box(left + 1, top + 1, cell.x - 2, cell.y - 2, fill: colour(context))
        let title = cell.x < 60 ? "\(rank.share.rank)" : "rank \(rank.share.rank)"
        let middle = left + cell.x / 2
        guard cell.x >= 150, cell.y >= 40 else {
            return drawing.words(
                title, middle, top + cell.y / 2 + 3, size: cell.x < 20 ? 7 : 10, anchor: .middle, bold: true)
        }
        drawing.words(title, middle, top + 17, size: 11, anchor: .middle, bold: true)
        let share = rank.share
        var parts = [ranged("head", share.heads), ranged("expert", share.experts)]
        if share.expertColumns.count < share.expertWidth {
            parts.append(ranged("column", share.expertColumns))
        }
        drawing.words(
            cell.x >= 230 ? parts.joined(separator: " · ") : parts[1], middle, top + 31, size: 10, anchor: .middle,
            fill: Drawing.quiet)
    }

    private func ranged(_ name: String, _ range: Range<Int>) -> String {
        range.count == 1 ? "\(name) \(range.lowerBound)" : "\(name)s \(range.lowerBound)–\(range.upperBound - 1)"
    }

    // MARK: - A layer

    private func draw(paths drawing: inout Drawing) {
        heading("A layer's path", "bytes that all ranks of a stage get for each token; ~ expected", &drawing)
        drawing.y += 8
        let gap = 24.0
        let width = (Self.inner - gap) / 2
        let top = drawing.y
        var bottom = top
        for (column, kind) in cost.layerKinds.enumerated() {
            drawing.y = top
            let title = ranged("layer", kind.layers.first!..<kind.layers.last! + 1) + ", \(kind.name)"
            let x = Self.margin + Double(column) * (width + gap)
            drawing.words(title, x, drawing.y + 4, bold: true)
            drawing.y += 14
            draw(LayerPath(self, kind).stations, x, width, &drawing)
            bottom = max(bottom, drawing.y)
        }
        drawing.y = bottom + 14
        let ends = cost.transfersOfStages
        if !ends.isEmpty {
            drawing.words("outside the layers", Self.margin, drawing.y + 4, bold: true)
            drawing.y += 14
            for transfer in ends {
                draw(transfer, Self.margin, Self.inner, &drawing)
                drawing.y += 4
            }
        }
        drawing.y += 14
    }

    private func draw(_ stations: [LayerPath.Station], _ x: Double, _ width: Double, _ drawing: inout Drawing) {
        for (index, station) in stations.enumerated() {
            if index > 0 {
                drawing.arrow(x + 30, from: drawing.y, to: drawing.y + 10)
                drawing.y += 11
            }
            switch station {
            case .work(let text):
                drawing.box(x, drawing.y, width, 26, fill: Drawing.grey)
                drawing.words(text, x + 12, drawing.y + 17)
                drawing.y += 26
            case .transfer(let transfer): draw(transfer, x, width, &drawing)
            }
        }
    }

    private func draw(_ transfer: Transfer, _ x: Double, _ width: Double, _ drawing: inout Drawing) {
        drawing.box(x + 14, drawing.y, width - 14, 24, fill: transfer.kind.colour, radius: 12)
        drawing.words(transfer.name, x + 28, drawing.y + 16, size: 11, bold: true)
        drawing.words(
            "\(transfer.kind.rawValue) · \(group(transfer)) (\(transfer.ranks))", x + 164, drawing.y + 16, size: 10.5)
        let unit =
            switch transfer.unit {
            case .token: ""
            case .output: " / output row"
            case .dcpRow: " / DCP row"
            case .gatheredKey: " / gathered key"
            }
        drawing.words(
            (transfer.isExpected ? "~" : "") + bytesText(bytesPerUnit(transfer)) + unit, x + width - 12,
            drawing.y + 16, size: 11, anchor: .end)
        drawing.y += 24
    }
}

extension Transfer.Kind {
    fileprivate var colour: String {
        switch self {
        case .allGather: "#cfe3fb"
        case .reduceScatter: "#fbe0c3"
        case .allToAll: "#e3d5f7"
        case .sharedMemory: "#d3efd9"
        case .send: "#f7d4df"
        }
    }
}

/// A layer path lists the operations of a layer, with the collectives between them.
struct LayerPath {
    enum Station {
        case work(String)
        case transfer(Transfer)
    }

    private(set) var stations: [Station] = []

    init(_ report: LayoutReport, _ kind: LayoutCost.LayerKind) {
        for (operation, transfers) in report.cost.steps(of: kind) {
            if let title = operation.title { stations.append(.work(title)) }
            stations += transfers.map { .transfer($0) }
        }
    }
}
