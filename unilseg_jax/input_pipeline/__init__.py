"""input_pipeline"""
