"""Opens a scene's results in QGIS and prints what it makes of them as JSON; for the system's Python, which has QGIS.

python3 open_in_qgis.py POINTS MASK POLYGONS: POINTS is a JSON list of (x, y) in the mask's CRS.
"""

import json
import os
import sys

os.environ["QT_QPA_PLATFORM"] = "offscreen"

from qgis.core import (
    QgsApplication,
    QgsCoordinateTransform,
    QgsGeometry,
    QgsPointXY,
    QgsProject,
    QgsRasterLayer,
    QgsVectorLayer,
)


def read_mask(layer, points):
    provider, extent = layer.dataProvider(), layer.extent()
    return {
        "valid": layer.isValid(),
        "crs": layer.crs().authid(),
        "size": [layer.width(), layer.height()],
        "extent": [extent.xMinimum(), extent.yMinimum(), extent.xMaximum(), extent.yMaximum()],
        "no_data": provider.sourceNoDataValue(1),
        "at": [provider.sample(point, 1)[0] for point in points],
    }


def read_polygons(layer, points):
    features = list(layer.getFeatures())
    shapes = [feature.geometry() for feature in features]
    seen = {
        "valid": layer.isValid(),
        "crs": layer.crs().authid(),
        "fields": [field.name() for field in layer.fields()],
        "areas": [feature["area_m2"] for feature in features],
        "geometries_valid": all(shape.isGeosValid() for shape in shapes),
        "inside": [any(shape.contains(QgsGeometry.fromPointXY(point)) for shape in shapes) for point in points],
    }
    layer.setSubsetString('"score" > 0.9')  # the filter that docs/scenes.md names
    return {**seen, "above_0.9": layer.featureCount()}


def main(points, mask_path, polygons_path):
    application = QgsApplication([], False)
    application.initQgis()
    mask, polygons = QgsRasterLayer(mask_path, "mask"), QgsVectorLayer(polygons_path, "polygons", "ogr")
    points = [QgsPointXY(*point) for point in json.loads(points)]
    across = QgsCoordinateTransform(mask.crs(), polygons.crs(), QgsProject.instance())
    seen = [read_mask(mask, points), read_polygons(polygons, [across.transform(point) for point in points])]
    print(json.dumps(seen), flush=True)
    os._exit(0)  # QGIS 3.22 crashes when Python takes its objects down after the application


if __name__ == "__main__":
    main(*sys.argv[1:])
